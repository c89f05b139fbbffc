//! `ip.route.*`

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::argument::InterfaceName;
use crate::command::{Command, CommandError, Role};
use crate::context::Context;
use crate::domain::ip;
use crate::sys::netlink::Cidr;

/// `ip.route.list`
#[derive(Debug, Deserialize, JsonSchema)]
pub struct RouteList {}

impl Command for RouteList {
    const NAME: &'static str = "ip.route.list";
    const SUMMARY: &'static str = "Lists the routes of the main table.";
    const ROLE: Role = Role::Read;
    const IDEMPOTENT: bool = true;
    type Output = Vec<ip::Route>;

    async fn run(self, _context: &Context) -> Result<Self::Output, CommandError> {
        Ok(ip::routes().await?)
    }
}

/// `ip.route.add`
#[derive(Debug, Deserialize, JsonSchema)]
pub struct RouteAdd {
    /// The link it leaves by.
    dev: InterfaceName,
    /// Where to, as `10.0.0.0/8`; all that no other route covers when empty.
    #[serde(default)]
    dst: String,
    /// By whom; the destination is on the link when empty.
    #[serde(default)]
    gw: String,
}

impl Command for RouteAdd {
    const NAME: &'static str = "ip.route.add";
    const SUMMARY: &'static str = "Adds a route.";
    const ROLE: Role = Role::Admin;
    const IDEMPOTENT: bool = false;
    type Output = ();

    async fn run(self, _context: &Context) -> Result<(), CommandError> {
        Ok(ip::add_route(&self.dev, destination(&self.dst)?, gateway(&self.gw)?).await?)
    }
}

/// `ip.route.del`
#[derive(Debug, Deserialize, JsonSchema)]
pub struct RouteDel {
    /// The link it leaves by.
    dev: InterfaceName,
    /// Where to, as `10.0.0.0/8`; all that no other route covers when empty.
    #[serde(default)]
    dst: String,
    /// By whom; any when empty.
    #[serde(default)]
    gw: String,
}

impl Command for RouteDel {
    const NAME: &'static str = "ip.route.del";
    const SUMMARY: &'static str = "Removes the one route that is like this.";
    const ROLE: Role = Role::Admin;
    const IDEMPOTENT: bool = false;
    type Output = ();

    async fn run(self, _context: &Context) -> Result<(), CommandError> {
        Ok(ip::delete_route(&self.dev, destination(&self.dst)?, gateway(&self.gw)?).await?)
    }
}

fn destination(text: &str) -> Result<Option<Cidr>, CommandError> {
    let parse = |text: &str| text.parse::<Cidr>().map_err(|e| CommandError::bad_request(e.to_string()));
    if text.is_empty() || text == "default" { Ok(None) } else { parse(text).map(Some) }
}

fn gateway(text: &str) -> Result<Option<IpAddr>, CommandError> {
    let refused = |_| CommandError::bad_request(format!("gateway {:.64?} is no address", text));
    if text.is_empty() { Ok(None) } else { text.parse().map(Some).map_err(refused) }
}
