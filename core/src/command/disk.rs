//! `disk.*`: block devices.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Command, CommandError, Role, tool_error};
use crate::argument::AbsolutePath;
use crate::context::Context;
use crate::domain::disk::{self, DiskError, Force, PartitionKind, Position, TableKind};

impl From<DiskError> for CommandError {
    fn from(error: DiskError) -> Self {
        let message = error.to_string();
        let error = match error {
            DiskError::Tool(_, tool) => return tool_error(message, tool),
            DiskError::Missing(_) | DiskError::NoPartition(..) => CommandError::not_found(message.clone()),
            DiskError::Kind(..) | DiskError::Options(_) => CommandError::bad_request(message.clone()),
            DiskError::InUse(..)
            | DiskError::Signed { .. }
            | DiskError::NoTable { .. }
            | DiskError::NotMounted(_)
            | DiskError::NoFolder(_) => CommandError::precondition(message.clone()),
            DiskError::Io(_, source) => CommandError::internal(message.clone()).because(source),
        };
        // Old clients show nothing of a failure but what a tool would have complained.
        let message = error.report();
        error.with_stderr(message)
    }
}

/// A device with the fields of lsblk, of util-linux 2.38 or newer, and `start`, `end`, `size` and `blocksize` in bytes,
/// `table`, and `free`, a list of `start`, `end` and `size`; in a list, `error` when it cannot be looked into.
type Record = serde_json::Map<String, serde_json::Value>;

/// The block devices of a node.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Disks {
    /// One for each disk, with its partitions as `children`.
    blockdevices: Vec<Record>,
}

/// `disk.list`
#[derive(Debug, Deserialize, JsonSchema)]
pub struct List {}

impl Command for List {
    const NAME: &'static str = "disk.list";
    const SUMMARY: &'static str = "Lists the block devices.";
    const ROLE: Role = Role::Read;
    const IDEMPOTENT: bool = true;
    type Output = Disks;

    async fn run(self, _context: &Context) -> Result<Disks, CommandError> {
        Ok(Disks { blockdevices: disk::list().await? })
    }
}

/// `disk.getinfo`
#[derive(Debug, Deserialize, JsonSchema)]
pub struct GetInfo {
    /// Name of the disk, as `sda`.
    disk: String,
    /// Name of a partition of it, as `sda1`; the disk itself when empty.
    #[serde(default)]
    part: String,
}

impl Command for GetInfo {
    const NAME: &'static str = "disk.getinfo";
    const SUMMARY: &'static str = "Describes a disk or a partition.";
    const ROLE: Role = Role::Read;
    const IDEMPOTENT: bool = true;
    type Output = Record;

    async fn run(self, _context: &Context) -> Result<Record, CommandError> {
        Ok(disk::info(&self.disk, &self.part).await?)
    }
}

/// `disk.mktable`
#[derive(Debug, Deserialize, JsonSchema)]
pub struct MkTable {
    /// Name of the disk, as `sda`.
    disk: String,
    /// Kind of the table.
    #[serde(default)]
    table_type: TableKind,
    /// What the disk carries may be lost. A disk in use is refused all the same.
    #[serde(default)]
    force: bool,
}

impl Command for MkTable {
    const NAME: &'static str = "disk.mktable";
    const SUMMARY: &'static str = "Gives a disk a new, empty partition table.";
    const ROLE: Role = Role::Admin;
    const IDEMPOTENT: bool = false;
    type Output = ();

    async fn run(self, _context: &Context) -> Result<(), CommandError> {
        Ok(disk::make_table(&self.disk, self.table_type, Force::from(self.force)).await?)
    }
}

/// `disk.mkpart`
#[derive(Debug, Deserialize, JsonSchema)]
pub struct MkPart {
    /// Name of the disk, as `sda`.
    disk: String,
    /// Where it begins.
    start: Position,
    /// Where it ends.
    end: Position,
    /// Kind of the partition.
    #[serde(default)]
    part_type: PartitionKind,
}

impl Command for MkPart {
    const NAME: &'static str = "disk.mkpart";
    const SUMMARY: &'static str = "Adds a partition to a disk.";
    const ROLE: Role = Role::Admin;
    const IDEMPOTENT: bool = false;
    type Output = ();

    async fn run(self, _context: &Context) -> Result<(), CommandError> {
        Ok(disk::make_partition(&self.disk, self.part_type, &self.start, &self.end).await?)
    }
}

/// `disk.rmpart`
#[derive(Debug, Deserialize, JsonSchema)]
pub struct RmPart {
    /// Name of the disk, as `sda`.
    disk: String,
    /// Number of the partition, from 1.
    number: u32,
}

impl Command for RmPart {
    const NAME: &'static str = "disk.rmpart";
    const SUMMARY: &'static str = "Removes a partition that is not in use, whatever it carries. Its bytes stay: the same one made again has them.";
    const ROLE: Role = Role::Admin;
    const IDEMPOTENT: bool = false;
    type Output = ();

    async fn run(self, _context: &Context) -> Result<(), CommandError> {
        Ok(disk::remove_partition(&self.disk, self.number).await?)
    }
}

/// `disk.mount`
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Mount {
    /// Path of the device, as `/dev/sda1`.
    source: AbsolutePath,
    /// The folder, which must be there.
    target: AbsolutePath,
    /// Options of mount(8), joined by commas; `auto` says nothing.
    #[serde(default)]
    options: String,
}

impl Command for Mount {
    const NAME: &'static str = "disk.mount";
    const SUMMARY: &'static str = "Mounts a block device.";
    const ROLE: Role = Role::Admin;
    const IDEMPOTENT: bool = false;
    type Output = ();

    async fn run(self, _context: &Context) -> Result<(), CommandError> {
        Ok(disk::mount(&self.source, &self.target, &self.options).await?)
    }
}

/// `disk.umount`
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Umount {
    /// Path of the device, all mounts of which end; or a folder that a device is mounted on.
    source: AbsolutePath,
}

impl Command for Umount {
    const NAME: &'static str = "disk.umount";
    const SUMMARY: &'static str = "Unmounts a block device.";
    const ROLE: Role = Role::Admin;
    const IDEMPOTENT: bool = false;
    type Output = ();

    async fn run(self, _context: &Context) -> Result<(), CommandError> {
        Ok(disk::unmount(&self.source).await?)
    }
}
