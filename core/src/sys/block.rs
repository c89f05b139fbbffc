//! Block devices as the kernel names them, from /sys/class/block.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;

use super::{mount_table, text};

const CLASS: &str = "/sys/class/block";
/// The kernel counts in these, whatever the device does (block/stat.rst).
const SECTOR: u64 = 512;

/// A block device of this node: a whole disk or a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    name: String,
}

/// Who uses a device.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Use {
    /// It is mounted.
    #[error("it is mounted on {0}")]
    Mounted(PathBuf),
    /// Another device is made of it.
    #[error("{0} is made of it")]
    Held(String),
    /// The kernel says so, and not why: swap, a part of a file system or of an array, or a partition of it is in use.
    #[error("the kernel or another program holds it")]
    Busy,
}

impl Device {
    /// The device of a name as `sda`, or of its path below /dev. Elsewhere, looking at a path may wait for the server of a
    /// file system that has died.
    pub fn find(name: &str) -> Option<Self> {
        if name.starts_with('/') {
            let path = Path::new(name);
            let below_dev = path.starts_with("/dev") && path.components().all(|c| c != Component::ParentDir);
            return if below_dev { Self::at(path) } else { None };
        }
        // `!` stands for a slash; a dot or a slash would lead elsewhere.
        let plain = |c: char| c.is_ascii_alphanumeric() || "!-_".contains(c);
        let fits = !name.is_empty() && name.len() <= 64 && name.chars().all(plain);
        let device = Device { name: name.to_owned() };
        (fits && device.sys("size").exists()).then_some(device)
    }

    /// The device at a path.
    fn at(path: &Path) -> Option<Self> {
        let metadata = fs::metadata(path).ok()?;
        if !metadata.file_type().is_block_device() {
            return None;
        }
        let number = metadata.rdev();
        let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
        let folder = fs::canonicalize(format!("/sys/dev/block/{major}:{minor}")).ok()?;
        Some(Device { name: folder.file_name()?.to_str()?.to_owned() })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its path.
    pub fn path(&self) -> PathBuf {
        Path::new("/dev").join(self.name.replace('!', "/"))
    }

    /// It is part of a disk.
    pub fn is_partition(&self) -> bool {
        self.sys("partition").exists()
    }

    /// It is part of this disk.
    pub fn is_partition_of(&self, disk: &Device) -> bool {
        self.is_partition() && disk.sys(&self.name).exists()
    }

    /// A partition of it by its number, when the kernel knows it.
    pub fn partition(&self, number: u32) -> Option<Device> {
        let entries = fs::read_dir(Path::new(CLASS).join(&self.name)).ok()?;
        let numbered =
            |entry: &fs::DirEntry| text::value::<u32>(entry.path().join("partition")) == Some(number);
        let entry = entries.flatten().find(numbered)?;
        Some(Device { name: entry.file_name().to_str()?.to_owned() })
    }

    /// Its size in bytes.
    pub fn size_bytes(&self) -> u64 {
        text::value::<u64>(self.sys("size")).unwrap_or(0).saturating_mul(SECTOR)
    }

    /// Where a partition begins on its disk, in bytes.
    pub fn start_bytes(&self) -> u64 {
        text::value::<u64>(self.sys("start")).unwrap_or(0).saturating_mul(SECTOR)
    }

    /// The smallest piece it is read and written in, in bytes.
    pub fn block_bytes(&self) -> u64 {
        let own = self.sys("queue/logical_block_size");
        // A partition has it from its disk.
        let parent = fs::canonicalize(Path::new(CLASS).join(&self.name))
            .ok()
            .and_then(|p| Some(p.parent()?.to_owned()));
        let inherited = || text::value(parent?.join("queue/logical_block_size"));
        text::value(own).or_else(inherited).unwrap_or(SECTOR)
    }

    /// Mounts of it, the latest first.
    pub fn mounts(&self) -> io::Result<Vec<PathBuf>> {
        let number = text::value::<String>(self.sys("dev")).unwrap_or_default();
        let path = self.path();
        // btrfs and others have made-up numbers, and show a device by its path.
        let of_it = |mount: &mount_table::Mount| {
            // A source elsewhere is none of the kernel's, and looking at it may wait for somebody else's server.
            let source = Path::new(OsStr::from_bytes(&mount.source));
            let source = source.starts_with("/dev").then(|| Self::at(source)).flatten();
            mount.device == number || source.is_some_and(|device| device.path() == path)
        };
        let mut mounts: Vec<PathBuf> =
            mount_table::mounts()?.into_iter().filter(of_it).map(|mount| mount.mountpoint).collect();
        mounts.reverse();
        Ok(mounts)
    }

    /// Who uses the device itself; for a disk, not its partitions.
    pub fn own_use(&self) -> io::Result<Option<Use>> {
        if let Some(target) = self.mounts()?.into_iter().next() {
            return Ok(Some(Use::Mounted(target)));
        }
        let holder = fs::read_dir(self.sys("holders"))?.flatten().next();
        Ok(holder.map(|holder| Use::Held(holder.file_name().to_string_lossy().into_owned())))
    }

    /// Who uses the device, or a partition of it.
    pub fn any_use(&self) -> io::Result<Option<Use>> {
        if let Some(known) = self.own_use()? {
            return Ok(Some(known));
        }
        let partitions = fs::read_dir(Path::new(CLASS).join(&self.name))?.flatten();
        let partitions = partitions.filter(|entry| entry.path().join("partition").exists());
        for name in partitions.filter_map(|entry| entry.file_name().into_string().ok()) {
            if let Some(known) = (Device { name }).own_use()? {
                return Ok(Some(known));
            }
        }
        // What the kernel uses, it gives to nobody for himself alone (open(2)); it also knows what no list shows.
        match open(
            self.path(),
            OFlags::RDONLY | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NONBLOCK,
            Mode::empty(),
        ) {
            Ok(_) => Ok(None),
            Err(Errno::BUSY) => Ok(Some(Use::Busy)),
            Err(e) => Err(e.into()),
        }
    }

    fn sys(&self, file: &str) -> PathBuf {
        Path::new(CLASS).join(&self.name).join(file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_device_is_not_found() {
        for name in [
            "",
            "..",
            "../block",
            "no-such-disk",
            "sda/..",
            "a b",
            "/dev/null",
            "/dev",
            "/no/such",
            "/dev/../dev/null",
            "x\0y",
        ] {
            assert_eq!(Device::find(name), None, "{name:?}");
        }
        assert_eq!(Device::find(&"s".repeat(10_000)), None);
    }
}
