//! btrfs file systems, their devices and subvolumes.
//!
//! A device that is in use is never taken; one that carries something only when the caller insists.

mod shape;

use std::path::Path;

use schemars::JsonSchema;
use serde::Deserialize;

pub use shape::{Filesystem, Info, Subvolume};

use crate::domain::disk::{self, DiskError, Force};
use crate::sys::block::Device;
use crate::sys::btrfs;
use crate::sys::tool::ToolError;

/// Longest name of a file system (btrfs(5)).
const MAX_LABEL: usize = 255;
/// Most devices in one command.
const MAX_DEVICES: usize = 128;

/// Why a file system stays as it is.
#[derive(Debug, thiserror::Error)]
pub enum BtrfsError {
    /// A device is missing, in use or carries something.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// What was asked for contradicts itself.
    #[error("{0}")]
    Arguments(String),
    /// Nothing is at a path.
    #[error("nothing is at {0}")]
    Missing(String),
    /// Something is at a path.
    #[error("something is at {0} already")]
    Exists(String),
    /// The tool failed.
    #[error("cannot {0}")]
    Tool(String, #[source] ToolError),
}

/// How data lies on devices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum Profile {
    /// As btrfs finds best.
    #[default]
    #[serde(rename = "")]
    Unset,
    Raid0,
    Raid1,
    Raid5,
    Raid6,
    Raid10,
    Dup,
    Single,
}

impl Profile {
    fn name(self) -> &'static str {
        match self {
            Profile::Unset => "",
            Profile::Raid0 => "raid0",
            Profile::Raid1 => "raid1",
            Profile::Raid5 => "raid5",
            Profile::Raid6 => "raid6",
            Profile::Raid10 => "raid10",
            Profile::Dup => "dup",
            Profile::Single => "single",
        }
    }
}

fn failed(what: String) -> impl FnOnce(ToolError) -> BtrfsError {
    move |e| BtrfsError::Tool(what, e)
}

/// All file systems of the node.
pub async fn list() -> Result<Vec<Filesystem>, BtrfsError> {
    let all = btrfs::show(None).await.map_err(failed("list the btrfs file systems".to_owned()))?;
    Ok(all.into_iter().map(Filesystem::from).collect())
}

/// The file system that is mounted at a path.
pub async fn info(mountpoint: &Path) -> Result<Info, BtrfsError> {
    there(mountpoint).await?;
    let what = || format!("look at the file system at {}", mountpoint.display());
    let shown = btrfs::show(Some(mountpoint)).await.map_err(failed(what()))?;
    let usage = btrfs::usage(mountpoint).await.map_err(failed(what()))?;
    let filesystem = shown.into_iter().next();
    let filesystem = filesystem.ok_or_else(|| BtrfsError::Missing(mountpoint.display().to_string()))?;
    Ok(Info::new(filesystem, usage))
}

/// What a new file system shall be.
#[derive(Debug)]
pub struct Plan {
    /// Its name; none when empty.
    pub label: String,
    /// How its metadata lies.
    pub metadata: Profile,
    /// How its data lies.
    pub data: Profile,
    /// Its devices.
    pub devices: Vec<String>,
    /// What they carry may be lost.
    pub force: Force,
}

/// Makes a file system.
pub async fn create(plan: &Plan) -> Result<(), BtrfsError> {
    let bad_label =
        plan.label.len() > MAX_LABEL || plan.label.contains(['\0', '\n', '/']) || plan.label.starts_with('-');
    if bad_label {
        return Err(BtrfsError::Arguments(format!("label {:.32?} is none that btrfs takes", plan.label)));
    }
    let devices = free_devices(&plan.devices, plan.force).await?;
    let paths: Vec<_> = devices.iter().map(Device::path).collect();
    let overwrite = plan.force == Force::Yes;
    let made = btrfs::make(&plan.label, plan.metadata.name(), plan.data.name(), &paths, overwrite).await;
    made.map_err(failed(format!("make a btrfs file system on {}", plan.devices.join(" "))))
}

/// Adds devices to the file system that is mounted at a path.
pub async fn add_devices(mountpoint: &Path, names: &[String], force: Force) -> Result<(), BtrfsError> {
    there(mountpoint).await?;
    let devices = free_devices(names, force).await?;
    let paths: Vec<_> = devices.iter().map(Device::path).collect();
    let added = btrfs::add_devices(mountpoint, &paths, force == Force::Yes).await;
    added.map_err(failed(format!("add {} to {}", names.join(" "), mountpoint.display())))
}

/// Takes devices out of the file system that is mounted at a path.
pub async fn remove_devices(mountpoint: &Path, names: &[String]) -> Result<(), BtrfsError> {
    there(mountpoint).await?;
    let devices = find_devices(names)?;
    let paths: Vec<_> = devices.iter().map(Device::path).collect();
    let removed = btrfs::remove_devices(mountpoint, &paths).await;
    removed.map_err(failed(format!("take {} out of {}", names.join(" "), mountpoint.display())))
}

/// Makes a subvolume.
pub async fn make_subvolume(path: &Path) -> Result<(), BtrfsError> {
    free(path).await?;
    btrfs::make_subvolume(path).await.map_err(failed(format!("make the subvolume {}", path.display())))
}

/// Removes a subvolume with all that is in it.
pub async fn remove_subvolume(path: &Path) -> Result<(), BtrfsError> {
    there(path).await?;
    btrfs::remove_subvolume(path).await.map_err(failed(format!("remove the subvolume {}", path.display())))
}

/// The subvolumes below a path, with their limits.
pub async fn subvolumes(path: &Path) -> Result<Vec<Subvolume>, BtrfsError> {
    there(path).await?;
    let what = || format!("list the subvolumes of {}", path.display());
    let subvolumes = btrfs::subvolumes(path).await.map_err(failed(what()))?;
    let limits = btrfs::limits(path).await.map_err(failed(what()))?.unwrap_or_default();
    let limit = |id: u64| limits.iter().find(|(of, _)| *of == id).map_or(0, |(_, limit)| *limit);
    Ok(subvolumes.into_iter().map(|found| Subvolume::new(limit(found.id), found)).collect())
}

/// Sets the most that a subvolume may use; `none` takes the limit away.
pub async fn limit(path: &Path, limit: &str) -> Result<(), BtrfsError> {
    if !is_limit(limit) {
        return Err(BtrfsError::Arguments(format!("limit {limit:.32?} is none, such as 10G or none")));
    }
    there(path).await?;
    let what = || format!("limit the subvolume {}", path.display());
    btrfs::enable_quotas(path).await.map_err(failed(what()))?;
    btrfs::limit(path, limit).await.map_err(failed(what()))
}

/// Makes a snapshot of a subvolume.
pub async fn snapshot(source: &Path, destination: &Path, read_only: bool) -> Result<(), BtrfsError> {
    there(source).await?;
    let made = btrfs::snapshot(source, destination, read_only).await;
    made.map_err(failed(format!("make a snapshot of {} at {}", source.display(), destination.display())))
}

async fn free_devices(names: &[String], force: Force) -> Result<Vec<Device>, BtrfsError> {
    let devices = find_devices(names)?;
    for device in &devices {
        disk::refuse_taken(device, force).await?;
    }
    Ok(devices)
}

fn find_devices(names: &[String]) -> Result<Vec<Device>, BtrfsError> {
    if names.is_empty() || names.len() > MAX_DEVICES {
        return Err(BtrfsError::Arguments(format!("{} devices: 1 to {MAX_DEVICES} are needed", names.len())));
    }
    let mut devices: Vec<Device> = Vec::new();
    for name in names {
        let device = disk::find(name)?;
        if devices.contains(&device) {
            return Err(BtrfsError::Arguments(format!("device {} is named twice", device.name())));
        }
        devices.push(device);
    }
    Ok(devices)
}

async fn there(path: &Path) -> Result<(), BtrfsError> {
    let found = tokio::fs::metadata(path).await;
    found.map(drop).map_err(|_| BtrfsError::Missing(path.display().to_string()))
}

async fn free(path: &Path) -> Result<(), BtrfsError> {
    match tokio::fs::symlink_metadata(path).await {
        Ok(_) => Err(BtrfsError::Exists(path.display().to_string())),
        Err(_) => Ok(()),
    }
}

/// `none`, or a number with a unit as K, M, G, T, P or E.
fn is_limit(text: &str) -> bool {
    let number = text.trim_end_matches(|c: char| "kKmMgGtTpPeE".contains(c));
    let digits = !number.is_empty() && number.len() <= 20 && number.bytes().all(|b| b.is_ascii_digit());
    text == "none" || (digits && text.len() - number.len() <= 1)
}

#[cfg(test)]
mod tests;
