//! Block devices: what is there, partitions, mounts.
//!
//! Nothing here destroys what somebody may still want: a device that is mounted or held is never changed, and one that
//! carries anything only when the caller insists.

mod list;
mod mount;
mod partition;
mod size;

use std::io;

pub use list::{info, list};
pub use mount::{mount, unmount};
pub use partition::{PartitionKind, TableKind, make_partition, make_table, remove_partition};
pub use size::Position;

use crate::sys::block::{Device, Use};
use crate::sys::signature;
use crate::sys::tool::ToolError;

/// Why a disk stays as it is.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// No such device.
    #[error("no block device {0:?} on this node")]
    Missing(String),
    /// It is part of a disk, and a disk is needed; or the other way round.
    #[error("{0} is {1}")]
    Kind(String, &'static str),
    /// Somebody uses it.
    #[error("{0} is in use: {1}")]
    InUse(String, Use),
    /// It carries something.
    #[error("{device} carries {what}: with force, that is lost")]
    Signed {
        /// The device.
        device: String,
        /// What it carries.
        what: String,
    },
    /// There is nothing that partitions could be in.
    #[error("{device} has no partition table{}", instead(carries))]
    NoTable {
        /// The device.
        device: String,
        /// What it carries.
        carries: Vec<String>,
    },
    /// No such partition.
    #[error("{0} has no partition {1}")]
    NoPartition(String, u32),
    /// Not mounted.
    #[error("{0} is not mounted")]
    NotMounted(String),
    /// Options that mount(8) must not see.
    #[error("{0:?} are no options of a mount")]
    Options(String),
    /// A mountpoint that is none.
    #[error("{0} is no folder: make it first")]
    NoFolder(String),
    /// A tool failed.
    #[error("cannot {0}")]
    Tool(String, #[source] ToolError),
    /// The kernel does not say.
    #[error("cannot find out about {0}")]
    Io(String, #[source] io::Error),
}

/// What there is instead of a partition table, and what to do.
fn instead(carries: &[String]) -> String {
    match carries {
        [] => ": make one with disk.mktable first".to_owned(),
        found => {
            format!(" and carries {}: disk.mktable with force makes one, and that is lost", found.join(", "))
        }
    }
}

impl DiskError {
    /// The error and its causes on one line.
    fn report(&self) -> String {
        let mut report = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            report.push_str(": ");
            report.push_str(&error.to_string());
            cause = error.source();
        }
        report
    }
}

/// What a caller says about data that would be lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Force {
    /// Leave a device alone that carries something.
    No,
    /// It may be lost.
    Yes,
}

impl From<bool> for Force {
    fn from(force: bool) -> Self {
        if force { Force::Yes } else { Force::No }
    }
}

/// The device of a name or a path.
pub fn find(name: &str) -> Result<Device, DiskError> {
    Device::find(name).ok_or_else(|| DiskError::Missing(name.chars().take(64).collect()))
}

fn find_disk(name: &str) -> Result<Device, DiskError> {
    let device = find(name)?;
    if device.is_partition() {
        return Err(DiskError::Kind(device.name().to_owned(), "a partition, and a whole disk is needed"));
    }
    Ok(device)
}

/// Refuses a device that would lose something by being written anew.
pub async fn refuse_taken(device: &Device, force: Force) -> Result<(), DiskError> {
    let io_error = |e| DiskError::Io(device.name().to_owned(), e);
    if let Some(used) = device.any_use().map_err(io_error)? {
        return Err(DiskError::InUse(device.name().to_owned(), used));
    }
    if force == Force::Yes {
        return Ok(());
    }
    let found = signature::signatures(&device.path()).await;
    let found = found.map_err(|e| DiskError::Tool(format!("look at {}", device.name()), e))?;
    if found.is_empty() {
        return Ok(());
    }
    Err(DiskError::Signed { device: device.name().to_owned(), what: found.join(", ") })
}

#[cfg(test)]
mod tests;
