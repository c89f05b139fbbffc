//! `ip.addr.*`

use schemars::JsonSchema;
use serde::Deserialize;

use crate::argument::{InterfaceName, Network};
use crate::command::{Command, CommandError, Role};
use crate::context::Context;
use crate::domain::ip;

/// `ip.addr.list`
#[derive(Debug, Deserialize, JsonSchema)]
pub struct AddrList {
    /// The link.
    name: InterfaceName,
}

impl Command for AddrList {
    const NAME: &'static str = "ip.addr.list";
    const SUMMARY: &'static str = "Lists the addresses of a link.";
    const ROLE: Role = Role::Read;
    const IDEMPOTENT: bool = true;
    type Output = Vec<String>;

    async fn run(self, _context: &Context) -> Result<Self::Output, CommandError> {
        Ok(ip::addresses(&self.name).await?)
    }
}

/// `ip.addr.add`
#[derive(Debug, Deserialize, JsonSchema)]
pub struct AddrAdd {
    /// The link.
    name: InterfaceName,
    /// Address and prefix length.
    ip: Network,
}

impl Command for AddrAdd {
    const NAME: &'static str = "ip.addr.add";
    const SUMMARY: &'static str = "Gives a link an address.";
    const ROLE: Role = Role::Admin;
    const IDEMPOTENT: bool = false;
    type Output = ();

    async fn run(self, _context: &Context) -> Result<(), CommandError> {
        Ok(ip::add_address(&self.name, self.ip.0).await?)
    }
}

/// `ip.addr.del`
#[derive(Debug, Deserialize, JsonSchema)]
pub struct AddrDel {
    /// The link.
    name: InterfaceName,
    /// Address and prefix length.
    ip: Network,
}

impl Command for AddrDel {
    const NAME: &'static str = "ip.addr.del";
    const SUMMARY: &'static str = "Takes an address from a link.";
    const ROLE: Role = Role::Admin;
    const IDEMPOTENT: bool = false;
    type Output = ();

    async fn run(self, _context: &Context) -> Result<(), CommandError> {
        Ok(ip::delete_address(&self.name, self.ip.0).await?)
    }
}
