//! Mode `kernel`: EROFS mounts the tree, and asks us only for contents.
//!
//! ```text
//! open, stat, readdir, cached reads      the kernel alone
//! a page that is missing                 EROFS -> small or big on the private FUSE mount -> SpaceEdge -> Filesystem
//! ```
//!
//! The tree comes from its unlinked file in the cache folder, so that metadata stays usable whatever happens to us;
//! where the file system of that folder cannot back EROFS (tmpfs, overlayfs), from the private mount too.
//!
//! What the mount table shows as source is a path, as EROFS wants it: a symlink `flist:CID` in the cache folder that
//! is there only while we mount. By it any process finds the daemon of a mount (`mountpoint.rs`).

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, bounded};
use parking_lot::Mutex;
use rustix::fs::{Mode, OFlags};
use rustix::ioctl::{Getter, ioctl, opcode};
use rustix::mount::MountFlags;

use super::devices::{Connection, Devices};
use super::error::MountError;
use super::mount::{Made, Parts, Serving};
use super::mountpoint::{Before, Location, tree_link};
use super::read_ahead;
use crate::fuse::{ImageSpaces, Space, SpaceEdge, Trimmer};

/// The kernel asks EROFS again when a read-ahead fails, and EROFS, reading `small` through the page cache, likewise asks
/// twice each time.
const TRIES: u32 = 4;
/// How long an unmount may wait for requests under way before they are ended.
const GRACE: Duration = Duration::from_secs(2);
/// One at a time: the symlink, and what is new in the mount table, are ours.
static MOUNTING: Mutex<()> = Mutex::new(());

/// What the end of a mount may need.
#[derive(Clone, Debug)]
pub(super) struct Kernel {
    connection: Connection,
    /// `erofs-N` with an N that is never given out again; none when the kernel does not say.
    superblock: Option<String>,
}

/// Mounts, and serves.
pub(super) fn start(parts: &Parts<'_>, directory: &OwnedFd) -> Result<Made, MountError> {
    serve(parts, Devices::serve, |devices| {
        // EROFS takes it over when it opens the files; later changes have no effect.
        read_ahead::set(&devices.connection.bdi(), read_ahead::small(parts));
        mount_tree(parts, directory, devices)
    })
}

/// Goes on to serve a mount that is there, over the kernel's end of its private mount.
pub(super) fn resume(parts: &Parts<'_>, device: OwnedFd, location: Location) -> Result<Made, MountError> {
    serve(parts, |edge| Devices::resume(edge, device), |_| Ok(location))
}

fn serve(
    parts: &Parts<'_>,
    devices: impl FnOnce(SpaceEdge<ImageSpaces>) -> Result<(Devices, Serving), MountError>,
    place: impl FnOnce(&Devices) -> Result<Location, MountError>,
) -> Result<Made, MountError> {
    let fs = parts.filesystem(TRIES);
    let trimmer = Trimmer::start().map_err(parts.failed("starting a thread for"))?;
    let spaces = ImageSpaces::new(fs.clone(), parts.runtime.clone(), trimmer.clone());
    let (devices, session) = devices(SpaceEdge(spaces))?;
    let location = place(&devices)?;
    let superblock = superblock_name(&location).inspect_err(|error| {
        tracing::debug!(%error, "the kernel does not tell the name of an EROFS superblock");
    });
    let superblock = superblock.ok();
    if let Some(name) = &superblock {
        read_ahead::set(name, read_ahead::erofs(parts));
    }
    // From here on nothing but EROFS holds the private mount.
    let Devices { connection, page_cache, .. } = devices;
    trimmer.connect(move |ranges| page_cache.forget(Space::Small, ranges));
    let kernel = Kernel { connection, superblock };
    Ok(Made { location, fs, session, kernel: Some(kernel) })
}

/// mount(2) of the tree from its own file, or, where that cannot be, from the private mount.
fn mount_tree(parts: &Parts<'_>, directory: &OwnedFd, devices: &Devices) -> Result<Location, MountError> {
    let own_file = parts.image.tree.backing().file().map(own_path);
    let served = devices.path(Space::Tree);
    if let Some(path) = own_file {
        match mount_from(parts, directory, devices, &path) {
            Err(MountError::Kernel { source, .. }) if source.raw_os_error() == Some(libc::ENOTBLK) => {
                tracing::debug!("the file system of the cache cannot back EROFS: the tree is served, too");
            }
            other => return other,
        }
    }
    mount_from(parts, directory, devices, &served)
}

/// Path of an open file, for this process.
pub(super) fn own_path(file: &File) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

fn mount_from(
    parts: &Parts<'_>,
    directory: &OwnedFd,
    devices: &Devices,
    tree: &str,
) -> Result<Location, MountError> {
    let _alone = MOUNTING.lock();
    let link = Link::new(tree_link(&parts.image.id.to_string(), parts.cache_dir), tree)
        .map_err(parts.failed("making a symlink in the cache for"))?;
    let source = link.0.to_str().ok_or_else(|| MountError::NotUtf8(parts.cache_dir.to_owned()))?;
    let before = Before::new(source).map_err(parts.failed("reading the mount table for"))?;
    let mut flags = MountFlags::RDONLY | MountFlags::NOATIME;
    flags.set(MountFlags::NOSUID, !parts.spec.suid);
    flags.set(MountFlags::NODEV, !parts.spec.dev);
    let options = device_options(devices);
    // By descriptor: the path may lead elsewhere by now.
    let target = format!("/proc/self/fd/{}", directory.as_raw_fd());
    rustix::mount::mount(source, target, "erofs", flags, &*options)
        .map_err(MountError::kernel("mount(2) of EROFS"))?;
    before.added(parts.mountpoint).map_err(parts.failed("finding the mount on"))
}

fn device_options(devices: &Devices) -> std::ffi::CString {
    let options = format!("device={},device={}", devices.path(Space::Small), devices.path(Space::Big));
    std::ffi::CString::new(options).expect("it holds no NUL")
}

/// A symlink that is taken away again.
struct Link(PathBuf);

impl Link {
    fn new(at: PathBuf, target: &str) -> io::Result<Link> {
        // One that a killed daemon left.
        match std::fs::remove_file(&at) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        std::os::unix::fs::symlink(target, &at)?;
        Ok(Link(at))
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.0) {
            tracing::warn!(path = %self.0.display(), %error, "a symlink stays behind");
        }
    }
}

impl Kernel {
    /// Unmounts at `path`. The last unmount of EROFS waits for its unanswered requests and cannot be killed meanwhile: when
    /// it takes too long, they are ended with an error.
    pub(super) fn unmount(&self, location: &Location, path: &Path, lazy: bool) -> Result<(), MountError> {
        let (done, waiting) = bounded::<()>(0);
        let (connection, place) = (self.connection, location.clone());
        let watch = std::thread::Builder::new().name("g8-umount".into()).spawn(move || {
            let late = waiting.recv_timeout(GRACE) == Err(RecvTimeoutError::Timeout);
            // Seen somewhere, it is not its end that is waited for.
            if late && place.everywhere().is_ok_and(|paths| paths.is_empty()) {
                tracing::warn!(mountpoint = %place.mountpoint.display(), "unanswered requests are ended");
                if let Err(error) = connection.abort() {
                    tracing::error!(%error, "the FUSE connection is not ended");
                }
            }
        });
        watch.map_err(MountError::io("starting a thread to unmount", path))?;
        let unmounted = location.unmount(path, lazy);
        drop(done);
        unmounted
    }

    /// Detaches what is still mounted although its session is over: somebody has aborted the connection.
    pub(super) fn detach_remains(&self, location: &Location) {
        let Some(name) = &self.superblock else { return };
        // Device numbers are given out again at once; this name is not.
        if !Path::new("/sys/fs/erofs").join(name).exists() {
            return;
        }
        for path in location.everywhere().unwrap_or_default() {
            tracing::error!(mountpoint = %path.display(), "nobody serves it any more: it is detached");
            if let Err(error) = location.unmount(&path, true) {
                tracing::warn!(mountpoint = %path.display(), %error, "a dead mount stays");
            }
        }
    }
}

/// What FS_IOC_GETFSSYSFSPATH fills in (linux/fs.h): where in /sys/fs the file system is.
#[repr(C)]
struct SysfsPath {
    len: u8,
    name: [u8; 128],
}

const GET_SYSFS_PATH: rustix::ioctl::Opcode = opcode::read::<SysfsPath>(0x15, 1);

/// `erofs-N` of the mount at its mountpoint.
fn superblock_name(location: &Location) -> io::Result<String> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(&location.mountpoint, flags, Mode::empty())?;
    let seen = rustix::fs::fstat(&root)?.st_dev;
    let device = format!("{}:{}", rustix::fs::major(seen), rustix::fs::minor(seen));
    if device != location.device {
        return Err(io::Error::other("something else is mounted there by now"));
    }
    // SAFETY: the kernel fills a struct of this layout for this request.
    let path = unsafe { ioctl(&root, Getter::<GET_SYSFS_PATH, SysfsPath>::new())? };
    let name = path.name.get(..path.len.into()).and_then(|name| std::str::from_utf8(name).ok());
    let name = name.and_then(|name| name.strip_prefix("erofs/"));
    name.map(ToOwned::to_owned).ok_or_else(|| io::Error::other("it is not that of an EROFS"))
}
