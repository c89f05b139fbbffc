//! What block devices there are: the fields of lsblk, and those that clients of the predecessor expect beside them.

use serde_json::{Value, json};

use super::{DiskError, find, find_disk};
use crate::sys::block::Device;
use crate::sys::lsblk::{self, Record};
use crate::sys::{parted, signature};

/// All block devices, with the devices made of them as `children`. One that cannot be looked into says so in `error`.
pub async fn list() -> Result<Vec<Record>, DiskError> {
    let listed =
        lsblk::list(None).await.map_err(|e| DiskError::Tool("list the block devices".to_owned(), e))?;
    let mut records = Vec::new();
    for mut record in listed {
        // A drive without a medium, and a loop device without a file, is nobody's disk.
        let size = record.get("size").and_then(Value::as_u64).unwrap_or(0);
        let device = name_of(&record).and_then(Device::find).filter(|_| size > 0);
        if let Some(device) = device
            && let Err(error) = complete(&mut record, &device).await
        {
            // Pulled out since it was listed.
            if device.size_bytes() == 0 {
                continue;
            }
            record.insert("error".to_owned(), error.report().into());
        }
        records.push(record);
    }
    Ok(records)
}

/// One disk, or a partition of it.
pub async fn info(disk: &str, part: &str) -> Result<Record, DiskError> {
    let mut device = find_disk(disk)?;
    if !part.is_empty() {
        let partition = find(part)?;
        if !partition.is_partition_of(&device) {
            return Err(DiskError::Kind(partition.name().to_owned(), "no partition of that disk"));
        }
        device = partition;
    }
    let listed = lsblk::list(Some(&device.path())).await;
    let listed = listed.map_err(|e| DiskError::Tool(format!("look at {}", device.name()), e))?;
    let mut record = listed.into_iter().next().ok_or_else(|| DiskError::Missing(device.name().to_owned()))?;
    complete(&mut record, &device).await?;
    Ok(record)
}

/// Adds place and size in bytes, the partition table, and what is free of the disk.
async fn complete(record: &mut Record, device: &Device) -> Result<(), DiskError> {
    fill(record, device).await?;
    if let Some(Value::Array(children)) = record.get_mut("children") {
        for child in children.iter_mut().filter_map(Value::as_object_mut) {
            if let Some(device) = name_of(child).and_then(Device::find) {
                fill(child, &device).await?;
            }
        }
    }
    let size = device.size_bytes();
    let start = device.start_bytes();
    let table = if device.is_partition() { None } else { record["pttype"].as_str() };
    let table = table.unwrap_or_default().to_owned();
    let free = if table.is_empty() { Vec::new() } else { gaps(device).await? };
    record.insert("start".to_owned(), start.into());
    record.insert("size".to_owned(), size.into());
    record.insert("end".to_owned(), (start + size).saturating_sub(1).into());
    record.insert("blocksize".to_owned(), device.block_bytes().into());
    // As parted names it.
    record.insert("table".to_owned(), if table == "dos" { "msdos".into() } else { table.into() });
    record.insert("free".to_owned(), free.into());
    Ok(())
}

async fn gaps(device: &Device) -> Result<Vec<Value>, DiskError> {
    let gaps = parted::gaps(&device.path()).await;
    let gaps =
        gaps.map_err(|e| DiskError::Tool(format!("read the partition table of {}", device.name()), e))?;
    Ok(gaps.iter().map(|gap| json!({ "start": gap.start, "end": gap.end, "size": gap.size })).collect())
}

/// What lsblk has from udev, read from the device itself where there is no udev.
async fn fill(record: &mut Record, device: &Device) -> Result<(), DiskError> {
    const NAMES: [(&str, &str); 9] = [
        ("fstype", "TYPE"),
        ("fsver", "VERSION"),
        ("label", "LABEL"),
        ("uuid", "UUID"),
        ("pttype", "PTTYPE"),
        ("ptuuid", "PTUUID"),
        ("parttype", "PART_ENTRY_TYPE"),
        ("partlabel", "PART_ENTRY_NAME"),
        ("partuuid", "PART_ENTRY_UUID"),
    ];
    let missing = |record: &Record, name: &str| record.get(name).is_none_or(Value::is_null);
    if !NAMES.iter().take(5).any(|(name, _)| missing(record, name)) {
        return Ok(());
    }
    let found = signature::properties(&device.path()).await;
    let found = found.map_err(|e| DiskError::Tool(format!("look at {}", device.name()), e))?;
    for (name, tag) in NAMES {
        if missing(record, name) {
            record.insert(name.to_owned(), found.get(tag).map_or(Value::Null, |value| value.as_str().into()));
        }
    }
    Ok(())
}

fn name_of(record: &Record) -> Option<&str> {
    record.get("kname")?.as_str()
}
