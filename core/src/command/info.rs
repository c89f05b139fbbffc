//! `info.*`: what the node is.

use schemars::JsonSchema;
use serde::Deserialize;

use super::errand::{Hand, Inside};
use super::{Command, CommandError, Role, blocking};
use crate::context::Context;
use crate::domain::info::{self, InfoError};

impl From<InfoError> for CommandError {
    fn from(error: InfoError) -> Self {
        CommandError::internal("the system cannot say what it is").because(error)
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

impl Inside for Cpu {
    fn inside(self, _hand: &mut Hand) -> Result<Self::Output, CommandError> {
        Ok(info::cpus()?)
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

impl Inside for Mem {
    fn inside(self, _hand: &mut Hand) -> Result<Self::Output, CommandError> {
        Ok(info::memory()?)
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

impl Inside for Disk {
    fn inside(self, _hand: &mut Hand) -> Result<Self::Output, CommandError> {
        Ok(info::partitions()?)
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

impl Inside for Nic {
    fn inside(self, _hand: &mut Hand) -> Result<Self::Output, CommandError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|e| CommandError::internal("no runtime for rtnetlink").because(e))?;
        Ok(runtime.block_on(info::nics())?)
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

impl Inside for Os {
    fn inside(self, _hand: &mut Hand) -> Result<Self::Output, CommandError> {
        Ok(info::host()?)
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

impl Inside for Port {
    fn inside(self, _hand: &mut Hand) -> Result<Self::Output, CommandError> {
        Ok(info::ports()?)
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
