//! The shapes that clients of the predecessor know.

use schemars::JsonSchema;
use serde::Serialize;

use crate::sys::btrfs;

/// A file system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Filesystem {
    /// Its name; `none` when it has none.
    pub label: String,
    /// Its UUID.
    pub uuid: String,
    /// How many devices it has, those that are missing too.
    pub total_devices: u64,
    /// Bytes in use.
    pub used: u64,
    /// Its devices.
    pub devices: Vec<Device>,
    /// What btrfs warns of.
    pub warnings: String,
}

/// A device of a file system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Device {
    /// It is not there.
    pub missing: bool,
    /// Its number in the file system.
    pub dev_id: u64,
    /// Its size in bytes.
    pub size: u64,
    /// Bytes of it that are given to something.
    pub used: u64,
    /// Its path.
    pub path: String,
}

/// A file system that is mounted, and what it is used for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Info {
    /// The file system.
    #[serde(flatten)]
    pub filesystem: Filesystem,
    /// Contents of files.
    pub data: Usage,
    /// How the devices are divided.
    pub system: Usage,
    /// Everything else.
    pub metadata: Usage,
    /// Kept back for emergencies.
    pub globalreserve: Usage,
}

/// What is given to a kind of data.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Usage {
    /// How it lies, as `RAID1`; several joined by commas while they change.
    pub profile: String,
    /// Bytes given.
    pub total: u64,
    /// Bytes of them in use.
    pub used: u64,
}

/// A subvolume. Its names are those of the predecessor, which forgot to choose them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct Subvolume {
    /// Its number.
    #[serde(rename = "ID")]
    pub id: u64,
    /// When it was last changed, counted in transactions.
    #[serde(rename = "Gen")]
    pub generation: u64,
    /// The subvolume it lies in.
    pub top_level: u64,
    /// Its path from the top of the file system.
    pub path: String,
    /// The most it may use in bytes; 0 when there is no limit.
    pub quota: u64,
}

impl From<btrfs::Filesystem> for Filesystem {
    fn from(found: btrfs::Filesystem) -> Self {
        let device = |member: btrfs::Member| Device {
            missing: member.path.is_empty(),
            dev_id: member.id,
            size: member.size,
            used: member.used,
            path: member.path,
        };
        Filesystem {
            label: if found.label.is_empty() { "none".to_owned() } else { found.label },
            uuid: found.uuid,
            total_devices: found.total_devices,
            used: found.used,
            devices: found.devices.into_iter().map(device).collect(),
            warnings: found.warnings,
        }
    }
}

impl Info {
    pub(super) fn new(filesystem: btrfs::Filesystem, usage: Vec<btrfs::Usage>) -> Self {
        let of = |kind: &str| {
            let mut sum = Usage::default();
            for part in usage.iter().filter(|part| part.kind == kind) {
                if !sum.profile.is_empty() {
                    sum.profile.push(',');
                }
                sum.profile.push_str(&part.profile);
                sum.total += part.total;
                sum.used += part.used;
            }
            sum
        };
        Info {
            filesystem: filesystem.into(),
            data: of("Data"),
            system: of("System"),
            metadata: of("Metadata"),
            globalreserve: of("GlobalReserve"),
        }
    }
}

impl Subvolume {
    pub(super) fn new(quota: u64, found: btrfs::Subvolume) -> Self {
        Subvolume {
            id: found.id,
            generation: found.generation,
            top_level: found.top_level,
            path: found.path,
            quota,
        }
    }
}
