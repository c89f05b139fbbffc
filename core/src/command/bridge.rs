//! `bridge.*`: bridges with a network.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Command, CommandError, Role, hardware_address};
use crate::argument::InterfaceName;
use crate::context::Context;
use crate::domain::bridge::{BridgeError, Mode, Plan};

impl From<BridgeError> for CommandError {
    fn from(error: BridgeError) -> Self {
        let message = error.to_string();
        match error {
            BridgeError::Plan(_) => CommandError::bad_request(message),
            BridgeError::Exists(_) | BridgeError::Overlaps { .. } => CommandError::conflict(message),
            BridgeError::Missing(_) => CommandError::not_found(message),
            BridgeError::TooMany | BridgeError::GivenUp(_) => CommandError::unavailable(message),
            BridgeError::Netlink(error) => error.into(),
            BridgeError::Firewall(error) => error.into(),
            BridgeError::Dnsmasq(_, said) => CommandError::internal(message).with_stderr(said),
            BridgeError::File(_, source) => CommandError::internal(message).because(source),
        }
    }
}

/// `bridge.create`
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Create {
    /// Name of the bridge.
    name: InterfaceName,
    /// Its hardware address; any when empty.
    #[serde(default)]
    hwaddr: String,
    /// Its network.
    #[serde(default)]
    network: Network,
}

/// The network of a bridge.
#[derive(Debug, Default, Deserialize, JsonSchema)]
struct Network {
    /// `none` or empty: no network; `static`: the node has an address; `dnsmasq`: and gives others theirs.
    #[serde(default)]
    mode: String,
    /// Packets from it leave the node with the node's address.
    #[serde(default)]
    nat: bool,
    /// `cidr`, the node's address as 10.0.0.1/24, for `static` and `dnsmasq`; `start` and `end` for `dnsmasq`.
    #[serde(default)]
    settings: BTreeMap<String, String>,
}

impl Network {
    fn mode(&self) -> Result<Mode, CommandError> {
        match self.mode.as_str() {
            "" | "none" => Ok(Mode::None),
            "static" => Ok(Mode::Static { network: self.setting("cidr")? }),
            "dnsmasq" => Ok(Mode::Dnsmasq {
                network: self.setting("cidr")?,
                start: self.setting("start")?,
                end: self.setting("end")?,
            }),
            other => Err(CommandError::bad_request(format!(
                "mode {other:.64?} is none of none, static and dnsmasq"
            ))),
        }
    }

    fn setting<T: std::str::FromStr<Err: std::fmt::Display>>(&self, name: &str) -> Result<T, CommandError> {
        let missing = || CommandError::bad_request(format!("mode {} needs the setting {name}", self.mode));
        let text = self.settings.get(name).ok_or_else(missing)?;
        text.parse().map_err(|e| CommandError::bad_request(format!("setting {name}: {text:.64?}: {e}")))
    }
}

impl Command for Create {
    const NAME: &'static str = "bridge.create";
    const SUMMARY: &'static str = "Makes a bridge, with a network when asked, and returns its name.";
    const ROLE: Role = Role::Admin;
    const IDEMPOTENT: bool = false;
    type Output = String;

    async fn run(self, context: &Context) -> Result<String, CommandError> {
        let address = hardware_address(&self.hwaddr)?;
        let plan = Plan::new(self.name, address, self.network.mode()?, self.network.nat)?;
        context.node.domains.bridges.create(&plan).await?;
        Ok(plan.name.to_string())
    }
}

/// `bridge.list`
#[derive(Debug, Deserialize, JsonSchema)]
pub struct List {}

impl Command for List {
    const NAME: &'static str = "bridge.list";
    const SUMMARY: &'static str = "Lists the names of all bridges.";
    const ROLE: Role = Role::Read;
    const IDEMPOTENT: bool = true;
    type Output = Vec<String>;

    async fn run(self, context: &Context) -> Result<Self::Output, CommandError> {
        Ok(context.node.domains.bridges.list().await?)
    }
}

/// `bridge.delete`
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Delete {
    /// Name of the bridge.
    name: InterfaceName,
}

impl Command for Delete {
    const NAME: &'static str = "bridge.delete";
    const SUMMARY: &'static str = "Removes a bridge and what belongs to it.";
    const ROLE: Role = Role::Admin;
    const IDEMPOTENT: bool = false;
    type Output = ();

    async fn run(self, context: &Context) -> Result<(), CommandError> {
        let domains = &context.node.domains;
        let users = domains.networks.users(&self.name);
        if !users.is_empty() {
            let list: Vec<String> = users.iter().map(ToString::to_string).collect();
            return Err(CommandError::precondition(format!(
                "bridge {} is used by the containers {}: terminate them first",
                self.name,
                list.join(", ")
            )));
        }
        Ok(domains.bridges.delete(&self.name).await?)
    }
}
