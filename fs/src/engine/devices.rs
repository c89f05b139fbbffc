//! The private FUSE mount below mode `kernel`: the data spaces of one image as files.
//!
//! It is mounted nowhere. The kernel keeps it for as long as EROFS has its files open, and it goes with them, however
//! the daemon ends: nobody else can reach it, and nothing is left behind.

#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{self, Write};
use std::num::NonZeroU64;
use std::ops::Range;
use std::os::fd::{AsRawFd, OwnedFd};

use fuser::{Session, SessionACL};
use rustix::fs::{Advice, AtFlags, Mode, OFlags, StatxFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};

use super::error::MountError;
use super::fuse_mode::{open_device, session_config};
use super::mount::Serving;
use super::resume;
use crate::fuse::Space;

/// A FUSE mount without a place.
pub(super) struct Devices {
    mount: OwnedFd,
    pub connection: Connection,
    pub page_cache: PageCache,
}

impl Devices {
    /// Mounts `edge` and answers the kernel from here on.
    pub(super) fn serve<F: fuser::Filesystem>(edge: F) -> Result<(Devices, Serving), MountError> {
        let acl = SessionACL::Owner;
        Self::over(open_device()?, |device| Session::from_fd(edge, device, acl, session_config(acl)))
    }

    /// Goes on to answer the kernel, over its end of a mount whose daemon has died.
    pub(super) fn resume<F: fuser::Filesystem>(
        edge: F,
        device: OwnedFd,
    ) -> Result<(Devices, Serving), MountError> {
        Self::over(device.into(), |device| resume::session(edge, device, SessionACL::Owner))
    }

    fn over<F: fuser::Filesystem>(
        device: File,
        session: impl FnOnce(OwnedFd) -> io::Result<Session<F>>,
    ) -> Result<(Devices, Serving), MountError> {
        let mount = detached_fuse(&device).map_err(MountError::kernel("a private FUSE mount"))?;
        let connection = Connection::of(&mount).map_err(MountError::kernel("a look at the FUSE mount"))?;
        let page_cache = device.try_clone().map(|device| PageCache { device });
        let page_cache = page_cache.map_err(MountError::kernel("a second descriptor"))?;
        let session = session(device.into()).map_err(MountError::kernel("a FUSE session"))?;
        let session =
            Serving::run(session, connection).map_err(MountError::kernel("a thread for a FUSE session"))?;
        Ok((Devices { mount, connection, page_cache }, session))
    }

    /// Path of a file, for this process and as long as this value lives.
    pub(super) fn path(&self, space: Space) -> String {
        format!("/proc/self/fd/{}/{}", self.mount.as_raw_fd(), space.name())
    }
}

/// The mount of a device. One that is mounted already gives the same mount once more (fs/fuse/inode.c, fuse_get_tree).
fn detached_fuse(device: &File) -> io::Result<OwnedFd> {
    let fs = rustix::mount::fsopen("fuse", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let set = |key: &str, value: String| rustix::mount::fsconfig_set_string(&fs, key, value);
    set("source", "flist-devices".into())?;
    set("subtype", "flist-devices".into())?;
    set("fd", device.as_raw_fd().to_string())?;
    set("rootmode", "40000".into())?;
    set("user_id", "0".into())?;
    set("group_id", "0".into())?;
    rustix::mount::fsconfig_create(&fs)?;
    mount_detached(fs)
}

/// A mount of a file system context, in no directory.
pub(super) fn mount_detached(fs: OwnedFd) -> io::Result<OwnedFd> {
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV;
    Ok(rustix::mount::fsmount(fs, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

/// What FUSE has cached of the files. It keeps no hold on the mount, which is to end with EROFS.
pub(super) struct PageCache {
    device: File,
}

impl PageCache {
    /// Drops ranges of a file, but for pages that somebody uses or waits for.
    pub(super) fn forget(&self, space: Space, ranges: &[Range<u64>]) -> io::Result<()> {
        let mount = detached_fuse(&self.device)?;
        let file = rustix::fs::openat(&mount, space.name(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        for range in ranges {
            rustix::fs::fadvise(
                &file,
                range.start,
                NonZeroU64::new(range.end - range.start),
                Advice::DontNeed,
            )?;
        }
        Ok(())
    }
}

/// A FUSE connection, by the number that the kernel gave it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Connection(u32);

impl Connection {
    fn of(mount: &OwnedFd) -> io::Result<Connection> {
        // The daemon is not asked: the number is the minor of the file system's device.
        let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
        Ok(Connection(rustix::fs::statx(mount, "", flags, StatxFlags::BASIC_STATS)?.stx_dev_minor))
    }

    /// The one of a FUSE file system, by its device in the mount table.
    pub(super) fn of_device(device: &str) -> io::Result<Connection> {
        let number = device.strip_prefix("0:").and_then(|minor| minor.parse().ok());
        number.map(Connection).ok_or_else(|| io::Error::other("it is no device of a FUSE mount"))
    }

    /// Name of its backing device.
    pub(super) fn bdi(self) -> String {
        format!("0:{}", self.0)
    }

    /// Ends all its requests, now and for ever, with an error (Documentation/filesystems/fuse.rst, "Interrupting").
    pub(super) fn abort(self) -> io::Result<()> {
        // A mount of our own: nobody need have mounted it on /sys.
        let fs = rustix::mount::fsopen("fusectl", FsOpenFlags::FSOPEN_CLOEXEC)?;
        rustix::mount::fsconfig_create(&fs)?;
        let control = mount_detached(fs)?;
        let path = format!("{}/abort", self.0);
        let abort = rustix::fs::openat(&control, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
        File::from(abort).write_all(b"1")
    }
}
