//! `info.*`: what the node is.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Command, CommandError, Role, blocking};
use crate::context::Context;
use crate::domain::info::{self, InfoError};

impl From<InfoError> for CommandError {
    fn from(error: InfoError) -> Self {
        CommandError::internal("the node cannot say what it is").because(error)
    }
}

/// `info.cpu`
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Cpu {}

impl Command for Cpu {
    const NAME: &'static str = "info.cpu";
    const SUMMARY: &'static str = "Lists the processors.";
    const ROLE: Role = Role::Read;
    const IDEMPOTENT: bool = true;
    type Output = Vec<info::Cpu>;

    async fn run(self, _context: &Context) -> Result<Self::Output, CommandError> {
        blocking(info::cpus).await
    }
}

/// `info.mem`
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Mem {}

impl Command for Mem {
    const NAME: &'static str = "info.mem";
    const SUMMARY: &'static str = "Says how much memory there is and what it is used for.";
    const ROLE: Role = Role::Read;
    const IDEMPOTENT: bool = true;
    type Output = info::Memory;

    async fn run(self, _context: &Context) -> Result<Self::Output, CommandError> {
        blocking(info::memory).await
    }
}

/// `info.disk`
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Disk {}

impl Command for Disk {
    const NAME: &'static str = "info.disk";
    const SUMMARY: &'static str = "Lists the file systems on block devices that are mounted.";
    const ROLE: Role = Role::Read;
    const IDEMPOTENT: bool = true;
    type Output = Vec<info::Partition>;

    async fn run(self, _context: &Context) -> Result<Self::Output, CommandError> {
        blocking(info::partitions).await
    }
}

/// `info.nic`
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Nic {}

impl Command for Nic {
    const NAME: &'static str = "info.nic";
    const SUMMARY: &'static str = "Lists the NICs with their addresses.";
    const ROLE: Role = Role::Read;
    const IDEMPOTENT: bool = true;
    type Output = Vec<info::Nic>;

    async fn run(self, _context: &Context) -> Result<Self::Output, CommandError> {
        Ok(info::nics().await?)
    }
}

/// `info.os`
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Os {}

impl Command for Os {
    const NAME: &'static str = "info.os";
    const SUMMARY: &'static str = "Says which system runs, and since when.";
    const ROLE: Role = Role::Read;
    const IDEMPOTENT: bool = true;
    type Output = info::Host;

    async fn run(self, _context: &Context) -> Result<Self::Output, CommandError> {
        blocking(info::host).await
    }
}

/// `info.port`
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Port {}

impl Command for Port {
    const NAME: &'static str = "info.port";
    const SUMMARY: &'static str = "Lists the sockets that listen, and the processes that hold them.";
    const ROLE: Role = Role::Read;
    const IDEMPOTENT: bool = true;
    type Output = Vec<info::Port>;

    async fn run(self, _context: &Context) -> Result<Self::Output, CommandError> {
        blocking(info::ports).await
    }
}

/// `info.version`
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Version {}

impl Command for Version {
    const NAME: &'static str = "info.version";
    const SUMMARY: &'static str = "Says which core0 this is.";
    const ROLE: Role = Role::Read;
    const IDEMPOTENT: bool = true;
    type Output = info::Version;

    async fn run(self, _context: &Context) -> Result<Self::Output, CommandError> {
        Ok(info::version())
    }
}
