//! `nft.*`: open ports of the node.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Command, CommandError, Role, tool_error};
use crate::argument::InterfaceName;
use crate::context::Context;
use crate::domain::nft::{self, NftError, Rule, ShownRule};

impl From<NftError> for CommandError {
    fn from(error: NftError) -> Self {
        let message = error.to_string();
        match error {
            NftError::Tool(tool) => tool_error(message, tool),
            NftError::Exists(_) | NftError::Overlaps { .. } => CommandError::conflict(message),
            NftError::Missing(_) => CommandError::not_found(message),
            NftError::TooMany => CommandError::unavailable(message),
        }
    }
}

fn rule(port: u16, interface: &str, subnet: &str) -> Result<Rule, CommandError> {
    if port == 0 {
        return Err(CommandError::bad_request("port 0 is none: 1 to 65535 are"));
    }
    let link = |text: &str| text.parse::<InterfaceName>().map_err(CommandError::bad_request);
    let refused = || CommandError::bad_request(format!("subnet {subnet:.64?} is none, such as 10.0.0.0/8"));
    Ok(Rule {
        port,
        interface: if interface.is_empty() { None } else { Some(link(interface)?) },
        subnet: if subnet.is_empty() { None } else { Some(nft::subnet(subnet).ok_or_else(refused)?) },
    })
}

/// `nft.open_port`
#[derive(Debug, Deserialize, JsonSchema)]
pub struct OpenPort {
    /// The TCP port.
    port: u16,
    /// Only to who comes in by this link; to all when empty.
    #[serde(default)]
    interface: String,
    /// Only to this network or address; to all when empty.
    #[serde(default)]
    subnet: String,
}

impl Command for OpenPort {
    const NAME: &'static str = "nft.open_port";
    const SUMMARY: &'static str = "Opens a TCP port of the node.";
    const ROLE: Role = Role::Admin;
    const IDEMPOTENT: bool = false;
    type Output = ();

    async fn run(self, context: &Context) -> Result<(), CommandError> {
        let rule = rule(self.port, &self.interface, &self.subnet)?;
        Ok(context.node.domains.firewall.open_port(rule).await?)
    }
}

/// `nft.drop_port`
#[derive(Debug, Deserialize, JsonSchema)]
pub struct DropPort {
    /// The TCP port.
    port: u16,
    /// The link it was opened to.
    #[serde(default)]
    interface: String,
    /// The network it was opened to.
    #[serde(default)]
    subnet: String,
}

impl Command for DropPort {
    const NAME: &'static str = "nft.drop_port";
    const SUMMARY: &'static str = "Closes a TCP port that was opened in the same words.";
    const ROLE: Role = Role::Admin;
    const IDEMPOTENT: bool = false;
    type Output = ();

    async fn run(self, context: &Context) -> Result<(), CommandError> {
        let rule = rule(self.port, &self.interface, &self.subnet)?;
        Ok(context.node.domains.firewall.drop_port(rule).await?)
    }
}

/// `nft.list`
#[derive(Debug, Deserialize, JsonSchema)]
pub struct List {}

impl Command for List {
    const NAME: &'static str = "nft.list";
    const SUMMARY: &'static str = "Lists the TCP ports that were opened.";
    const ROLE: Role = Role::Read;
    const IDEMPOTENT: bool = true;
    type Output = Vec<ShownRule>;

    async fn run(self, context: &Context) -> Result<Self::Output, CommandError> {
        let rules = context.node.domains.firewall.rules().await?;
        Ok(rules.into_iter().map(ShownRule::from).collect())
    }
}

/// `nft.rule_exists`
#[derive(Debug, Deserialize, JsonSchema)]
pub struct RuleExists {
    /// The TCP port.
    port: u16,
    /// The link it may have been opened to.
    #[serde(default)]
    interface: String,
    /// The network it may have been opened to.
    #[serde(default)]
    subnet: String,
}

impl Command for RuleExists {
    const NAME: &'static str = "nft.rule_exists";
    const SUMMARY: &'static str = "Says whether a TCP port was opened in these words.";
    const ROLE: Role = Role::Read;
    const IDEMPOTENT: bool = true;
    type Output = bool;

    async fn run(self, context: &Context) -> Result<bool, CommandError> {
        let rule = rule(self.port, &self.interface, &self.subnet)?;
        Ok(context.node.domains.firewall.rules().await?.contains(&rule))
    }
}
