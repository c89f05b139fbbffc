//! Partition tables and partitions, by parted.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{DiskError, Force, Position, find_disk, refuse_taken};
use crate::sys::{parted, signature};

/// A kind of partition table, as parted names them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum TableKind {
    Aix,
    Amiga,
    Bsd,
    Dvh,
    #[default]
    Gpt,
    Mac,
    Msdos,
    Pc98,
    Sun,
    Loop,
}

impl TableKind {
    fn name(self) -> &'static str {
        match self {
            TableKind::Aix => "aix",
            TableKind::Amiga => "amiga",
            TableKind::Bsd => "bsd",
            TableKind::Dvh => "dvh",
            TableKind::Gpt => "gpt",
            TableKind::Mac => "mac",
            TableKind::Msdos => "msdos",
            TableKind::Pc98 => "pc98",
            TableKind::Sun => "sun",
            TableKind::Loop => "loop",
        }
    }
}

/// A kind of partition, which matters in tables of kind msdos; in others it is a name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum PartitionKind {
    #[default]
    Primary,
    Logical,
    Extended,
}

impl PartitionKind {
    fn name(self) -> &'static str {
        match self {
            PartitionKind::Primary => "primary",
            PartitionKind::Logical => "logical",
            PartitionKind::Extended => "extended",
        }
    }
}

/// Gives a disk a new, empty partition table.
pub async fn make_table(disk: &str, kind: TableKind, force: Force) -> Result<(), DiskError> {
    let device = find_disk(disk)?;
    refuse_taken(&device, force).await?;
    let made = parted::make_table(&device.path(), kind.name()).await;
    made.map_err(|e| DiskError::Tool(format!("make a partition table on {}", device.name()), e))
}

/// Adds a partition to a disk. Its other partitions may be in use.
pub async fn make_partition(
    disk: &str,
    kind: PartitionKind,
    start: &Position,
    end: &Position,
) -> Result<(), DiskError> {
    let device = find_disk(disk)?;
    if let Some(used) = device.own_use().map_err(|e| DiskError::Io(device.name().to_owned(), e))? {
        return Err(DiskError::InUse(device.name().to_owned(), used));
    }
    let look = |e| DiskError::Tool(format!("look at {}", device.name()), e);
    if parted::table(&device.path()).await.map_err(look)?.is_none() {
        let carries = signature::signatures(&device.path()).await.map_err(look)?;
        return Err(DiskError::NoTable { device: device.name().to_owned(), carries });
    }
    let made = parted::make_partition(&device.path(), kind.name(), start.as_str(), end.as_str()).await;
    made.map_err(|e| DiskError::Tool(format!("make a partition on {}", device.name()), e))
}

/// Removes a partition that nobody uses, whatever it carries: its bytes stay where they are, and the same partition made
/// again has them.
pub async fn remove_partition(disk: &str, number: u32) -> Result<(), DiskError> {
    let device = find_disk(disk)?;
    let Some(partition) = device.partition(number) else {
        return Err(DiskError::NoPartition(device.name().to_owned(), number));
    };
    if let Some(used) = partition.any_use().map_err(|e| DiskError::Io(partition.name().to_owned(), e))? {
        return Err(DiskError::InUse(partition.name().to_owned(), used));
    }
    let removed = parted::remove_partition(&device.path(), number).await;
    removed.map_err(|e| DiskError::Tool(format!("remove partition {number} of {}", device.name()), e))
}
