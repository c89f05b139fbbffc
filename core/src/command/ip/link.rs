//! `ip.link.*`

use schemars::JsonSchema;
use serde::Deserialize;

use crate::argument::InterfaceName;
use crate::command::{Command, CommandError, Role};
use crate::context::Context;
use crate::domain::ip;

/// `ip.link.list`
#[derive(Debug, Deserialize, JsonSchema)]
pub struct LinkList {}

impl Command for LinkList {
    const NAME: &'static str = "ip.link.list";
    const SUMMARY: &'static str = "Lists the links.";
    const ROLE: Role = Role::Read;
    const IDEMPOTENT: bool = true;
    type Output = Vec<ip::Link>;

    async fn run(self, _context: &Context) -> Result<Self::Output, CommandError> {
        Ok(ip::links().await?)
    }
}

/// `ip.link.up`
#[derive(Debug, Deserialize, JsonSchema)]
pub struct LinkUp {
    /// The link.
    name: InterfaceName,
}

impl Command for LinkUp {
    const NAME: &'static str = "ip.link.up";
    const SUMMARY: &'static str = "Sets a link up.";
    const ROLE: Role = Role::Admin;
    const IDEMPOTENT: bool = true;
    type Output = ();

    async fn run(self, _context: &Context) -> Result<(), CommandError> {
        Ok(ip::set_up(&self.name).await?)
    }
}

/// `ip.link.down`
#[derive(Debug, Deserialize, JsonSchema)]
pub struct LinkDown {
    /// The link.
    name: InterfaceName,
}

impl Command for LinkDown {
    const NAME: &'static str = "ip.link.down";
    const SUMMARY: &'static str = "Takes a link down.";
    const ROLE: Role = Role::Admin;
    const IDEMPOTENT: bool = true;
    type Output = ();

    async fn run(self, _context: &Context) -> Result<(), CommandError> {
        Ok(ip::set_down(&self.name).await?)
    }
}

/// `ip.link.name`
#[derive(Debug, Deserialize, JsonSchema)]
pub struct LinkName {
    /// The link, which must be down.
    name: InterfaceName,
    /// Its new name.
    new: InterfaceName,
}

impl Command for LinkName {
    const NAME: &'static str = "ip.link.name";
    const SUMMARY: &'static str = "Gives a link another name.";
    const ROLE: Role = Role::Admin;
    const IDEMPOTENT: bool = false;
    type Output = ();

    async fn run(self, _context: &Context) -> Result<(), CommandError> {
        Ok(ip::rename(&self.name, &self.new).await?)
    }
}

/// `ip.link.mtu`
#[derive(Debug, Deserialize, JsonSchema)]
pub struct LinkMtu {
    /// The link.
    name: InterfaceName,
    /// Largest packet in bytes.
    mtu: u32,
}

impl Command for LinkMtu {
    const NAME: &'static str = "ip.link.mtu";
    const SUMMARY: &'static str = "Sets the largest packet of a link.";
    const ROLE: Role = Role::Admin;
    const IDEMPOTENT: bool = true;
    type Output = ();

    async fn run(self, _context: &Context) -> Result<(), CommandError> {
        Ok(ip::set_mtu(&self.name, self.mtu).await?)
    }
}
