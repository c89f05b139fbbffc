//! `btrfs.subvol_*`

use schemars::JsonSchema;
use serde::Deserialize;

use crate::argument::AbsolutePath;
use crate::command::{Command, CommandError, Role};
use crate::context::Context;
use crate::domain::btrfs;

/// `btrfs.subvol_create`
#[derive(Debug, Deserialize, JsonSchema)]
pub struct SubvolCreate {
    /// Its path, in a btrfs file system.
    path: AbsolutePath,
}

impl Command for SubvolCreate {
    const NAME: &'static str = "btrfs.subvol_create";
    const SUMMARY: &'static str = "Makes a subvolume.";
    const ROLE: Role = Role::Admin;
    const IDEMPOTENT: bool = false;
    type Output = ();

    async fn run(self, _context: &Context) -> Result<(), CommandError> {
        Ok(btrfs::make_subvolume(&self.path).await?)
    }
}

/// `btrfs.subvol_list`
#[derive(Debug, Deserialize, JsonSchema)]
pub struct SubvolList {
    /// A path in a btrfs file system.
    path: AbsolutePath,
}

impl Command for SubvolList {
    const NAME: &'static str = "btrfs.subvol_list";
    const SUMMARY: &'static str = "Lists the subvolumes below a path, with their limits.";
    const ROLE: Role = Role::Read;
    const IDEMPOTENT: bool = true;
    type Output = Vec<btrfs::Subvolume>;

    async fn run(self, _context: &Context) -> Result<Self::Output, CommandError> {
        Ok(btrfs::subvolumes(&self.path).await?)
    }
}

/// `btrfs.subvol_delete`
#[derive(Debug, Deserialize, JsonSchema)]
pub struct SubvolDelete {
    /// Path of the subvolume.
    path: AbsolutePath,
}

impl Command for SubvolDelete {
    const NAME: &'static str = "btrfs.subvol_delete";
    const SUMMARY: &'static str = "Removes a subvolume with all that is in it.";
    const ROLE: Role = Role::Admin;
    const IDEMPOTENT: bool = false;
    type Output = ();

    async fn run(self, _context: &Context) -> Result<(), CommandError> {
        Ok(btrfs::remove_subvolume(&self.path).await?)
    }
}

/// `btrfs.subvol_quota`
#[derive(Debug, Deserialize, JsonSchema)]
pub struct SubvolQuota {
    /// Path of the subvolume.
    path: AbsolutePath,
    /// The most it may use, as `10G`; `none` takes the limit away.
    limit: String,
}

impl Command for SubvolQuota {
    const NAME: &'static str = "btrfs.subvol_quota";
    const SUMMARY: &'static str = "Limits what a subvolume may use.";
    const ROLE: Role = Role::Admin;
    const IDEMPOTENT: bool = true;
    type Output = ();

    async fn run(self, _context: &Context) -> Result<(), CommandError> {
        Ok(btrfs::limit(&self.path, &self.limit).await?)
    }
}

/// `btrfs.subvol_snapshot`
#[derive(Debug, Deserialize, JsonSchema)]
pub struct SubvolSnapshot {
    /// Path of the subvolume.
    source: AbsolutePath,
    /// Path of the snapshot.
    destination: AbsolutePath,
    /// Nobody may write in it.
    #[serde(default)]
    read_only: bool,
}

impl Command for SubvolSnapshot {
    const NAME: &'static str = "btrfs.subvol_snapshot";
    const SUMMARY: &'static str = "Makes a snapshot of a subvolume.";
    const ROLE: Role = Role::Admin;
    const IDEMPOTENT: bool = false;
    type Output = ();

    async fn run(self, _context: &Context) -> Result<(), CommandError> {
        Ok(btrfs::snapshot(&self.source, &self.destination, self.read_only).await?)
    }
}
