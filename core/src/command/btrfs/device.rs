//! `btrfs.device_*`

use schemars::JsonSchema;
use serde::Deserialize;

use crate::argument::AbsolutePath;
use crate::command::{Command, CommandError, Role};
use crate::context::Context;
use crate::domain::btrfs;
use crate::domain::disk::Force;

/// `btrfs.device_add`
#[derive(Debug, Deserialize, JsonSchema)]
pub struct DeviceAdd {
    /// Where the file system is mounted.
    mountpoint: AbsolutePath,
    /// The devices, as `/dev/sda` or `sda`.
    devices: Vec<String>,
    /// What the devices carry may be lost. A device in use is refused all the same.
    #[serde(default)]
    force: bool,
}

impl Command for DeviceAdd {
    const NAME: &'static str = "btrfs.device_add";
    const SUMMARY: &'static str = "Adds devices to a btrfs file system that is mounted.";
    const ROLE: Role = Role::Admin;
    const IDEMPOTENT: bool = false;
    type Output = ();

    async fn run(self, _context: &Context) -> Result<(), CommandError> {
        Ok(btrfs::add_devices(&self.mountpoint, &self.devices, Force::from(self.force)).await?)
    }
}

/// `btrfs.device_remove`
#[derive(Debug, Deserialize, JsonSchema)]
pub struct DeviceRemove {
    /// Where the file system is mounted.
    mountpoint: AbsolutePath,
    /// The devices, as `/dev/sda` or `sda`.
    devices: Vec<String>,
}

impl Command for DeviceRemove {
    const NAME: &'static str = "btrfs.device_remove";
    const SUMMARY: &'static str =
        "Moves what devices carry to the others and takes them out of a btrfs file system.";
    const ROLE: Role = Role::Admin;
    const IDEMPOTENT: bool = false;
    type Output = ();

    async fn run(self, _context: &Context) -> Result<(), CommandError> {
        Ok(btrfs::remove_devices(&self.mountpoint, &self.devices).await?)
    }
}
