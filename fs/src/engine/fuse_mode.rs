//! Mode `fuse`: the whole tree over FUSE, mounted by mount(2) as root, else through fusermount3.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::LazyLock;

use fuser::{Config, MountOption, Session, SessionACL};
use parking_lot::Mutex;
use rustix::mount::MountFlags;

use super::devices::Connection;
use super::error::{FUSE_DEVICE, MountError};
use super::mount::{Made, Parts, Serving};
use super::mountpoint::{Before, Location, is_dead, source};
use super::spec::MountSpec;
use super::{read_ahead, resume};
use crate::fuse::Edge;

/// Between a mount and looking for it in the table there must be no other.
static MOUNTING: Mutex<()> = Mutex::new(());
/// How often the kernel asks before it gives up: a failed read-ahead, then a plain read.
const TRIES: u32 = 2;

/// Mounts, and serves.
pub(super) fn start(parts: &Parts<'_>, directory: &OwnedFd) -> Result<Made, MountError> {
    let fs = parts.filesystem(TRIES);
    let edge = Edge::new(fs.clone(), parts.runtime.clone(), parts.spec.allow_other);
    let source = source(&parts.image.id.to_string(), parts.cache_dir);
    let (session, location) = {
        let _alone = MOUNTING.lock();
        let before = Before::new(&source).map_err(parts.failed("reading the mount table for"))?;
        let session = open_session(edge, parts, directory, &before)?;
        (session, before.added(parts.mountpoint).map_err(parts.failed("finding the mount on"))?)
    };
    read_ahead::set(&location.device, read_ahead::fuse(parts));
    let connection = Connection::of_device(&location.device);
    let session = connection.and_then(|connection| Serving::run(session, connection)).map_err(|e| {
        detach(&location);
        parts.failed("starting a thread for")(e)
    })?;
    Ok(Made { location, fs, session, kernel: None })
}

/// Goes on to serve a mount that is there, over the kernel's end of its connection.
pub(super) fn resume(parts: &Parts<'_>, device: OwnedFd, location: Location) -> Result<Made, MountError> {
    let fs = parts.filesystem(TRIES);
    let edge = Edge::new(fs.clone(), parts.runtime.clone(), parts.spec.allow_other);
    let session = Connection::of_device(&location.device)
        .and_then(|connection| Serving::run(resume::session(edge, device, acl(parts.spec))?, connection));
    let session = session.map_err(parts.failed("going on to serve"))?;
    Ok(Made { location, fs, session, kernel: None })
}

fn acl(spec: &MountSpec) -> SessionACL {
    if spec.allow_other { SessionACL::All } else { SessionACL::Owner }
}

/// Takes away what is left of a mount that nobody serves any more. Device numbers are given out again at once, so what
/// is alive under this one is another mount already.
pub(super) fn detach(location: &Location) {
    for path in location.everywhere().unwrap_or_default() {
        if !is_dead(&path) {
            continue;
        }
        if let Err(error) = location.unmount(&path, true) {
            tracing::warn!(mountpoint = %path.display(), %error, "a dead mount stays");
        }
    }
}

/// How every session of ours is served.
pub(super) fn session_config(acl: SessionACL) -> Config {
    let mut config = Config::default();
    config.acl = acl;
    // Asking takes a dozen system calls.
    static THREADS: LazyLock<usize> =
        LazyLock::new(|| std::thread::available_parallelism().map_or(2, usize::from).clamp(2, 8));
    config.n_threads = Some(*THREADS);
    // One open file for all threads: what one of them has taken is not lost when they all die, as long as somebody keeps it.
    config.clone_fd = false;
    config
}

/// The kernel's end of a FUSE mount.
pub(super) fn open_device() -> Result<File, MountError> {
    let device = File::options().read(true).write(true).open(FUSE_DEVICE);
    device.map_err(|e| match e.kind() {
        io::ErrorKind::PermissionDenied => MountError::FuseForbidden(e),
        _ => MountError::NoFuse(e),
    })
}

/// Mounts and shakes hands: as root by mount(2), else through fusermount3.
///
/// Root does not leave the mount to fuser, since fuser unmounts the path once more when a session ends and could hit
/// what somebody has mounted there since.
fn open_session(
    edge: Edge,
    parts: &Parts<'_>,
    directory: &OwnedFd,
    before: &Before<'_>,
) -> Result<Session<Edge>, MountError> {
    let (spec, source) = (parts.spec, before.source);
    let acl = acl(spec);
    let mut config = session_config(acl);
    if !rustix::process::geteuid().is_root() {
        // The helper is setuid, but fuser opens the device itself before it asks the helper to mount.
        open_device()?;
        config.mount_options = helper_options(spec, source.to_owned());
        return Session::new(edge, parts.mountpoint, &config).map_err(parts.failed("mounting on"));
    }
    let device = open_device()?;
    let mut flags = MountFlags::RDONLY | MountFlags::NOATIME;
    flags.set(MountFlags::NOSUID, !spec.suid);
    flags.set(MountFlags::NODEV, !spec.dev);
    let mut data =
        format!("fd={},rootmode=40000,user_id=0,group_id=0,default_permissions", device.as_raw_fd());
    if spec.allow_other {
        data.push_str(",allow_other");
    }
    let data = CString::new(data).expect("it holds no NUL");
    // By descriptor: the path may lead elsewhere by now.
    let target = format!("/proc/self/fd/{}", directory.as_raw_fd());
    let failed_mount = parts.failed("mounting on");
    rustix::mount::mount(source, target, "fuse.flist", flags, &*data).map_err(|e| failed_mount(e.into()))?;
    Session::from_fd(edge, device.into(), acl, config).map_err(|e| {
        if let Ok(location) = before.added(parts.mountpoint) {
            detach(&location);
        }
        parts.failed("mounting on")(e)
    })
}

/// The same mount as options of fusermount3.
fn helper_options(spec: &MountSpec, source: String) -> Vec<MountOption> {
    let mut options = vec![
        MountOption::FSName(source),
        MountOption::Subtype("flist".into()),
        MountOption::RO,
        MountOption::NoAtime,
        MountOption::DefaultPermissions,
    ];
    options.push(if spec.suid { MountOption::Suid } else { MountOption::NoSuid });
    options.push(if spec.dev { MountOption::Dev } else { MountOption::NoDev });
    options
}
