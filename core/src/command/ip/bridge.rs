//! `ip.bridge.*`

use schemars::JsonSchema;
use serde::Deserialize;

use crate::argument::InterfaceName;
use crate::command::{Command, CommandError, Role, hardware_address};
use crate::context::Context;
use crate::domain::ip;

/// `ip.bridge.add`
#[derive(Debug, Deserialize, JsonSchema)]
pub struct BridgeAdd {
    /// Name of the bridge.
    name: InterfaceName,
    /// Its hardware address; any when empty.
    #[serde(default)]
    hwaddr: String,
}

impl Command for BridgeAdd {
    const NAME: &'static str = "ip.bridge.add";
    const SUMMARY: &'static str = "Makes a bridge without a network.";
    const ROLE: Role = Role::Admin;
    const IDEMPOTENT: bool = false;
    type Output = ();

    async fn run(self, _context: &Context) -> Result<(), CommandError> {
        Ok(ip::add_bridge(&self.name, hardware_address(&self.hwaddr)?).await?)
    }
}

/// `ip.bridge.del`
#[derive(Debug, Deserialize, JsonSchema)]
pub struct BridgeDel {
    /// Name of the bridge.
    name: InterfaceName,
}

impl Command for BridgeDel {
    const NAME: &'static str = "ip.bridge.del";
    const SUMMARY: &'static str = "Removes a bridge that was made by ip.bridge.add.";
    const ROLE: Role = Role::Admin;
    const IDEMPOTENT: bool = false;
    type Output = ();

    async fn run(self, _context: &Context) -> Result<(), CommandError> {
        Ok(ip::delete_bridge(&self.name).await?)
    }
}

/// `ip.bridge.addif`
#[derive(Debug, Deserialize, JsonSchema)]
pub struct BridgeAddIf {
    /// Name of the bridge.
    name: InterfaceName,
    /// The link that becomes a port of it.
    inf: InterfaceName,
}

impl Command for BridgeAddIf {
    const NAME: &'static str = "ip.bridge.addif";
    const SUMMARY: &'static str = "Makes a link a port of a bridge.";
    const ROLE: Role = Role::Admin;
    const IDEMPOTENT: bool = true;
    type Output = ();

    async fn run(self, _context: &Context) -> Result<(), CommandError> {
        Ok(ip::add_port(&self.name, &self.inf).await?)
    }
}

/// `ip.bridge.delif`
#[derive(Debug, Deserialize, JsonSchema)]
pub struct BridgeDelIf {
    /// Name of the bridge.
    name: InterfaceName,
    /// The port.
    inf: InterfaceName,
}

impl Command for BridgeDelIf {
    const NAME: &'static str = "ip.bridge.delif";
    const SUMMARY: &'static str = "Makes a port of a bridge a link of its own.";
    const ROLE: Role = Role::Admin;
    const IDEMPOTENT: bool = false;
    type Output = ();

    async fn run(self, _context: &Context) -> Result<(), CommandError> {
        Ok(ip::delete_port(&self.name, &self.inf).await?)
    }
}
