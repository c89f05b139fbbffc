//! Mountpoints: what the mount table says about them, clearing dead ones, unmounting.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode, percent_encode};
use rustix::fs::{AtFlags, OFlags, StatxAttributes, StatxFlags};
use rustix::mount::{UnmountFlags, unmount as sys_unmount};

use super::error::MountError;
use super::mountinfo::{self, Entry};
use super::spec::Mode;

/// Begins what the mount table shows as the source of our mounts: `flist:CID@CACHE`, from which any process finds the
/// daemon. The cache's path is percent-encoded, since mount options end at a comma.
const SOURCE_PREFIX: &[u8] = b"flist:";
/// How long a busy mount is tried again.
const BUSY_PATIENCE: Duration = Duration::from_millis(500);
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'.').remove(b'-').remove(b'_');

/// Begins the name of the symlink by which a tree is mounted in mode `kernel`: what the mount table shows as source must
/// be a path there, and this one lies in the cache and ends in the CID.
const LINK_PREFIX: &[u8] = b"flist:";

/// One of our mounts as the mount table shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnMount {
    /// Where.
    pub mountpoint: PathBuf,
    /// CID of the flist.
    pub reference: String,
    /// Folder of the cache whose daemon serves it.
    pub cache: PathBuf,
    /// User that the daemon runs as. The kernel says so; all else here is what the daemon said.
    pub owner: u32,
    /// How it reaches the kernel.
    pub mode: Mode,
    /// `major:minor` of the file system.
    pub(super) device: String,
    /// Number of the mount.
    id: u64,
}

impl OwnMount {
    /// Where it is.
    pub(super) fn location(&self) -> Location {
        Location { device: self.device.clone(), mountpoint: self.mountpoint.clone() }
    }
}

/// The source that the mount table is to show.
pub(super) fn source(reference: &str, cache: &Path) -> String {
    format!("flist:{reference}@{}", percent_encode(cache.as_os_str().as_bytes(), PLAIN))
}

/// The path of the symlink that the mount table is to show for a tree in mode `kernel`.
pub(super) fn tree_link(reference: &str, cache: &Path) -> PathBuf {
    cache.join(format!("flist:{reference}"))
}

/// All our mounts that this process can see, in the order in which they were made.
pub fn own_mounts() -> io::Result<Vec<OwnMount>> {
    Ok(mountinfo::read()?.iter().filter_map(own).collect())
}

/// The flist that is seen at `path`, which must be resolved.
pub fn own_mount_at(path: &Path) -> Result<OwnMount, MountError> {
    let table = mountinfo::read().map_err(MountError::io("reading the mount table for", path))?;
    match mountinfo::top(&table, path) {
        Some(top) => match own(top) {
            Some(mount) => Ok(mount),
            None if table.iter().any(|e| e.mountpoint == path && own(e).is_some()) => {
                Err(MountError::Covered(path.to_owned()))
            }
            None => Err(MountError::NotMounted(path.to_owned())),
        },
        None => Err(MountError::NotMounted(path.to_owned())),
    }
}

/// Whether a mount that was found is still there.
pub fn is_mounted(mount: &OwnMount) -> std::io::Result<bool> {
    Ok(mountinfo::read()?.iter().any(|e| e.id == mount.id && e.mountpoint == mount.mountpoint))
}

fn own(entry: &Entry) -> Option<OwnMount> {
    let (reference, cache, owner, mode) = match entry.fs_type.as_str() {
        "fuse.flist" => {
            let rest = entry.source.strip_prefix(SOURCE_PREFIX)?;
            let at = rest.iter().position(|b| *b == b'@')?;
            let owner = entry.options.split(',').find_map(|o| o.strip_prefix("user_id="))?;
            (&rest[..at], percent_decode(&rest[at + 1..]).collect(), owner.parse().ok()?, Mode::Fuse)
        }
        "erofs" => {
            let slash = entry.source.iter().rposition(|b| *b == b'/')?;
            let reference = entry.source[slash + 1..].strip_prefix(LINK_PREFIX)?;
            // The kernel lets only root mount an EROFS.
            (reference, entry.source[..slash].to_vec(), 0, Mode::Kernel)
        }
        _ => return None,
    };
    Some(OwnMount {
        mountpoint: entry.mountpoint.clone(),
        reference: String::from_utf8_lossy(reference).into_owned(),
        cache: OsString::from_vec(cache).into(),
        owner,
        mode,
        device: entry.device.clone(),
        id: entry.id,
    })
}

/// The mounts that show one source, to tell which one a mount has added. Nobody else must mount the same meanwhile.
pub(super) struct Before<'a> {
    pub(super) source: &'a str,
    known: Vec<(u64, String)>,
}

impl<'a> Before<'a> {
    pub(super) fn new(source: &'a str) -> io::Result<Self> {
        let known = with_source(source)?.into_iter().map(|e| (e.id, e.device)).collect();
        Ok(Before { source, known })
    }

    /// Where the mount that came since is: at `path`, or, when that leads elsewhere by now, what is new in the table.
    /// Newness alone would not do, since numbers of mounts and devices are given out again at once.
    pub(super) fn added(&self, path: &Path) -> io::Result<Location> {
        let table = with_source(self.source)?;
        let seen = device_seen_at(path).ok().flatten();
        let at_path = table.iter().find(|e| e.mountpoint == path && Some(&e.device) == seen.as_ref());
        let is_new = |e: &&Entry| !self.known.iter().any(|(id, device)| (*id, device) == (e.id, &e.device));
        let entry = at_path.or_else(|| table.iter().find(is_new)).ok_or(io::ErrorKind::NotFound)?;
        Ok(Location { device: entry.device.clone(), mountpoint: entry.mountpoint.clone() })
    }
}

/// Device of the file system whose root is seen at `path`: the kernel looks, at one moment, and does not ask the daemon.
fn device_seen_at(path: &Path) -> io::Result<Option<String>> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::STATX_DONT_SYNC;
    let seen = rustix::fs::statx(rustix::fs::CWD, path, flags, StatxFlags::BASIC_STATS)?;
    let is_root = seen.stx_attributes.contains(StatxAttributes::MOUNT_ROOT);
    Ok(is_root.then(|| format!("{}:{}", seen.stx_dev_major, seen.stx_dev_minor)))
}

fn with_source(source: &str) -> io::Result<Vec<Entry>> {
    Ok(mountinfo::read()?.into_iter().filter(|e| e.source == source.as_bytes()).collect())
}

/// Where a file system was mounted, and the device by which it is known wherever it is seen.
#[derive(Clone, Debug)]
pub(super) struct Location {
    pub device: String,
    pub mountpoint: PathBuf,
}

impl Location {
    /// The paths at which the file system is mounted now, whether or not something else covers it there.
    pub(super) fn everywhere(&self) -> io::Result<Vec<PathBuf>> {
        let table = mountinfo::read()?;
        Ok(table.into_iter().filter(|e| e.device == self.device).map(|e| e.mountpoint).collect())
    }

    /// Whether it is what is seen at `path`.
    pub(super) fn is_on_top(&self, path: &Path) -> io::Result<bool> {
        Ok(device_seen_at(path)?.as_ref() == Some(&self.device))
    }

    /// Unmounts it at `path`, where it must be on top: what somebody has mounted over it is not ours to take.
    pub(super) fn unmount(&self, path: &Path, lazy: bool) -> Result<(), MountError> {
        match self.is_on_top(path).map_err(MountError::io("reading the mount table for", path))? {
            true => unmount(path, lazy),
            false => Err(MountError::Covered(path.to_owned())),
        }
    }
}

/// `path` without symlinks above its last component, which is not touched: it may be a dead mount.
pub fn resolve(path: &Path) -> io::Result<PathBuf> {
    let path = std::path::absolute(path)?;
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => Ok(parent.canonicalize()?.join(name)),
        _ => Ok(path),
    }
}

/// Whether the daemon behind a mount has gone, so that every use of it fails with ENOTCONN.
///
/// The kernel keeps attributes of an flist for years, so it is made to ask.
pub fn is_dead(mountpoint: &Path) -> bool {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::STATX_FORCE_SYNC;
    let asked = rustix::fs::statx(rustix::fs::CWD, mountpoint, flags, StatxFlags::BASIC_STATS);
    matches!(asked, Err(rustix::io::Errno::NOTCONN | rustix::io::Errno::CONNABORTED))
}

/// A directory that can be mounted on, held open: whoever may rename things above it cannot swap it for another.
pub(super) struct Mountpoint {
    pub directory: OwnedFd,
    /// Its path when it was opened.
    pub path: PathBuf,
}

/// Checks that something can be mounted on `path`. A dead mount of ours there is cleared; `is_orphan` says of one whose
/// files live on without its daemon whether it is.
pub(super) fn prepare(path: &Path, is_orphan: impl Fn(&OwnMount) -> bool) -> Result<Mountpoint, MountError> {
    let path = &resolve(path).map_err(|_| MountError::Missing(path.to_owned()))?;
    if is_dead(path) {
        // Only what is ours; anybody else's dead mount is theirs to clear.
        own_mount_at(path)?;
        tracing::warn!(mountpoint = %path.display(), "clearing a mount whose daemon has gone");
        unmount(path, true)?;
        if is_dead(path) {
            return Err(MountError::io("clearing the dead mount on", path)(io::Error::from_raw_os_error(
                libc::ENOTCONN,
            )));
        }
    }
    if let Ok(mount) = own_mount_at(path)
        && is_orphan(&mount)
    {
        tracing::warn!(mountpoint = %path.display(), "clearing a mount whose daemon has gone");
        unmount(path, true)?;
    }
    let resolved = path.canonicalize().map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => MountError::Missing(path.to_owned()),
        _ => MountError::io("opening mountpoint", path)(e),
    })?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = rustix::fs::open(&resolved, flags, rustix::fs::Mode::empty()).map_err(|e| match e {
        rustix::io::Errno::NOTDIR => MountError::NotADirectory(path.to_owned()),
        other => MountError::io("opening mountpoint", path)(other.into()),
    })?;
    match own_mount_at(&resolved) {
        Ok(_) => Err(MountError::Busy(resolved)),
        Err(MountError::NotMounted(_) | MountError::Covered(_)) => {
            Ok(Mountpoint { directory, path: resolved })
        }
        Err(e) => Err(e),
    }
}

/// Unmounts what is on top of `mountpoint`: by ourselves, or through fusermount3 where that is not allowed.
///
/// A path that is being looked up holds a mount for a moment, so a busy one is tried again for a while.
pub fn unmount(mountpoint: &Path, lazy: bool) -> Result<(), MountError> {
    let end = Instant::now() + BUSY_PATIENCE;
    loop {
        match unmount_once(mountpoint, lazy) {
            Err(MountError::InUse(_)) if Instant::now() < end => {
                std::thread::sleep(Duration::from_millis(10))
            }
            other => return other,
        }
    }
}

fn unmount_once(mountpoint: &Path, lazy: bool) -> Result<(), MountError> {
    let flags = if lazy { UnmountFlags::DETACH } else { UnmountFlags::empty() };
    match sys_unmount(mountpoint, flags | UnmountFlags::NOFOLLOW) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::BUSY) => Err(MountError::InUse(mountpoint.to_owned())),
        Err(rustix::io::Errno::PERM) => fusermount(mountpoint, lazy),
        // It went in the meantime.
        Err(rustix::io::Errno::INVAL) => Ok(()),
        Err(e) => Err(MountError::io("unmounting", mountpoint)(e.into())),
    }
}

fn fusermount(mountpoint: &Path, lazy: bool) -> Result<(), MountError> {
    let mut command = std::process::Command::new("fusermount3");
    command.arg("-u").args(lazy.then_some("-z")).arg("--").arg(mountpoint);
    let output = command.output().map_err(MountError::io("running fusermount3 for", mountpoint))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if said.contains("busy") {
        return Err(MountError::InUse(mountpoint.to_owned()));
    }
    Err(MountError::io("unmounting", mountpoint)(io::Error::other(said)))
}

/// Where our mounts are, to keep cache and stores off them.
pub(super) struct PathRules {
    own: Vec<OwnMount>,
    table: Vec<Entry>,
}

impl PathRules {
    pub(super) fn read() -> Result<Self, MountError> {
        let table = mountinfo::read()
            .map_err(MountError::io("reading the mount table", Path::new("/proc/self/mountinfo")))?;
        Ok(PathRules { own: table.iter().filter_map(own).collect(), table })
    }

    /// Refuses a path that lies on one of our mounts.
    pub(super) fn refuse_own(&self, what: &'static str, path: &Path) -> Result<(), MountError> {
        if self.own.is_empty() {
            return Ok(());
        }
        let existing =
            path.ancestors().find_map(|p| p.canonicalize().ok()).unwrap_or_else(|| path.to_owned());
        let holder = self
            .table
            .iter()
            .filter(|e| existing.starts_with(&e.mountpoint))
            .max_by_key(|e| e.mountpoint.components().count());
        match holder.and_then(own) {
            Some(mount) => {
                Err(MountError::OwnMount { what, path: path.to_owned(), mountpoint: mount.mountpoint })
            }
            None => Ok(()),
        }
    }

    /// Refuses a mountpoint at or above a path that is needed to serve the mount.
    pub(super) fn refuse_hiding(
        &self,
        what: &'static str,
        path: &Path,
        mountpoint: &Path,
    ) -> Result<(), MountError> {
        let resolve = |p: &Path| p.canonicalize().unwrap_or_else(|_| p.to_owned());
        if resolve(path).starts_with(resolve(mountpoint)) {
            let (path, mountpoint) = (path.to_owned(), mountpoint.to_owned());
            return Err(MountError::Hides { what, path, mountpoint });
        }
        Ok(())
    }
}
