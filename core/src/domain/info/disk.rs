//! The mounted file systems that lie on block devices, from /proc/self/mountinfo (proc_pid_mountinfo(5)).

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::Serialize;

use super::{InfoError, read};
use crate::sys::mount_table;

/// A mounted file system.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Partition {
    /// What is mounted.
    pub device: String,
    /// Where.
    pub mountpoint: String,
    /// Type of the file system.
    pub fstype: String,
    /// Options of the mount, joined by commas.
    pub opts: String,
}

/// The file systems whose types need a device.
pub fn partitions() -> Result<Vec<Partition>, InfoError> {
    let filesystems = read("/proc/filesystems")?;
    let types = on_devices(&filesystems);
    let mounts = mount_table::mounts().map_err(|e| InfoError::Read(mount_table::PATH.into(), e))?;
    let kept = mounts.into_iter().filter(|m| types.contains(m.fs_type.as_str()));
    let partition = |m: mount_table::Mount| Partition {
        device: String::from_utf8_lossy(&m.source).into_owned(),
        mountpoint: m.mountpoint.display().to_string(),
        fstype: m.fs_type,
        opts: m.mount_options,
    };
    Ok(kept.map(partition).collect())
}

fn on_devices(filesystems: &str) -> BTreeSet<&str> {
    let lines = filesystems.lines().filter(|l| !l.starts_with("nodev"));
    lines.map(str::trim).chain(["zfs"]).filter(|t| !t.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_without_a_device_are_left_out() {
        let types = on_devices("nodev\tsysfs\nnodev\ttmpfs\n\text4\n\tbtrfs\n");
        assert!(types.contains("ext4") && types.contains("btrfs") && !types.contains("tmpfs"));
    }

    #[test]
    fn nothing_of_the_kernel_is_listed() {
        let partitions = partitions().unwrap();
        assert!(partitions.iter().all(|p| p.fstype != "proc" && p.fstype != "tmpfs"), "{partitions:?}");
    }
}
