//! `btrfs.*`: btrfs file systems.

mod device;
mod subvolume;

use schemars::JsonSchema;
use serde::Deserialize;

pub use device::{DeviceAdd, DeviceRemove};
pub use subvolume::{SubvolCreate, SubvolDelete, SubvolList, SubvolQuota, SubvolSnapshot};

use super::{Command, CommandError, Role, tool_error};
use crate::argument::AbsolutePath;
use crate::context::Context;
use crate::domain::btrfs::{self, BtrfsError, Plan, Profile};
use crate::domain::disk::Force;

impl From<BtrfsError> for CommandError {
    fn from(error: BtrfsError) -> Self {
        let message = error.to_string();
        match error {
            BtrfsError::Disk(error) => error.into(),
            BtrfsError::Arguments(_) => CommandError::bad_request(message),
            BtrfsError::Missing(_) => CommandError::not_found(message),
            BtrfsError::Exists(_) => CommandError::conflict(message),
            BtrfsError::Tool(_, tool) => tool_error(message, tool),
        }
    }
}

/// `btrfs.list`
#[derive(Debug, Deserialize, JsonSchema)]
pub struct List {}

impl Command for List {
    const NAME: &'static str = "btrfs.list";
    const SUMMARY: &'static str = "Lists the btrfs file systems.";
    const ROLE: Role = Role::Read;
    const IDEMPOTENT: bool = true;
    type Output = Vec<btrfs::Filesystem>;

    async fn run(self, _context: &Context) -> Result<Self::Output, CommandError> {
        Ok(btrfs::list().await?)
    }
}

/// `btrfs.info`
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Info {
    /// Where it is mounted.
    mountpoint: AbsolutePath,
}

impl Command for Info {
    const NAME: &'static str = "btrfs.info";
    const SUMMARY: &'static str = "Describes a btrfs file system that is mounted.";
    const ROLE: Role = Role::Read;
    const IDEMPOTENT: bool = true;
    type Output = btrfs::Info;

    async fn run(self, _context: &Context) -> Result<Self::Output, CommandError> {
        Ok(btrfs::info(&self.mountpoint).await?)
    }
}

/// `btrfs.create`
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Create {
    /// Its name; none when empty.
    #[serde(default)]
    label: String,
    /// How its metadata lies.
    #[serde(default)]
    metadata: Profile,
    /// How its data lies.
    #[serde(default)]
    data: Profile,
    /// Its devices, as `/dev/sda` or `sda`.
    devices: Vec<String>,
    /// What the devices carry may be lost. A device in use is refused all the same.
    #[serde(default)]
    overwrite: bool,
}

impl Command for Create {
    const NAME: &'static str = "btrfs.create";
    const SUMMARY: &'static str = "Makes a btrfs file system.";
    const ROLE: Role = Role::Admin;
    const IDEMPOTENT: bool = false;
    type Output = ();

    async fn run(self, _context: &Context) -> Result<(), CommandError> {
        let Create { label, metadata, data, devices, overwrite } = self;
        let plan = Plan { label, metadata, data, devices, force: Force::from(overwrite) };
        Ok(btrfs::create(&plan).await?)
    }
}
