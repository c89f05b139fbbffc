//! One mount: what was asked for, the session that serves it, what it has done.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fuser::{Config, MountOption, Session, SessionACL};
use g8_cache::{BadId, SourceStats};
use parking_lot::Mutex;
use rustix::mount::MountFlags;
use serde::{Deserialize, Serialize};

use super::mountpoint::{Before, Location, Mountpoint};
use crate::filesystem::Filesystem;
use crate::fuse::{Edge, Pusher};
use crate::image::OpenError;
use crate::source::{SourceOptions, Spec, SpecError};

const FUSE_DEVICE: &str = "/dev/fuse";
/// Read-ahead of a mount whose sources are all on this machine, in KiB; measured, see ARCHITECTURE.md.
const READ_AHEAD_LOCAL: u32 = 512;
/// The same where blocks come from afar and each round trip is long.
const READ_AHEAD_REMOTE: u32 = 2048;

/// How a mount reaches the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// The whole tree over FUSE: works everywhere, also without root.
    #[default]
    Fuse,
}

/// What to mount, where and how.
#[derive(Clone, Debug)]
pub struct MountSpec {
    /// CID of the flist.
    pub reference: String,
    /// Absolute path of an existing directory.
    pub mountpoint: PathBuf,
    /// Where blocks come from, in order.
    pub sources: Vec<Spec>,
    /// How their blocks are treated.
    pub source_options: SourceOptions,
    /// How it reaches the kernel.
    pub mode: Mode,
    /// Honour set-user-ID and file capabilities.
    pub suid: bool,
    /// Honour device nodes.
    pub dev: bool,
    /// Let other users in; the tree's own permissions hold.
    pub allow_other: bool,
    /// How long a read, and the opening of the image, may take.
    pub deadline: Duration,
}

impl MountSpec {
    /// Folders of this machine that are read to serve the mount.
    pub(super) fn local_sources(&self) -> impl Iterator<Item = &Path> {
        self.sources.iter().map(|spec| match spec {
            Spec::Dir(path) => path.as_path(),
        })
    }
}

/// Why a mount was not made or not ended.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The address is not one.
    #[error("{0:?} is not the address of an flist")]
    Reference(String, #[source] BadId),
    /// A source is not one.
    #[error(transparent)]
    Source(#[from] SpecError),
    /// The image cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The mountpoint is not there.
    #[error("mountpoint {0} does not exist: create it first")]
    Missing(PathBuf),
    /// The mountpoint is a file.
    #[error("mountpoint {0} is not a directory")]
    NotADirectory(PathBuf),
    /// Something of ours is mounted there.
    #[error("an flist is mounted on {0} already: umount it first, or choose another directory")]
    Busy(PathBuf),
    /// Nothing of ours is mounted there.
    #[error("no flist is mounted on {0}: `flist mounts` lists what is")]
    NotMounted(PathBuf),
    /// Something else is mounted over it.
    #[error("something else is mounted over the flist on {0}: umount that first")]
    Covered(PathBuf),
    /// Somebody uses it.
    #[error("{0} is in use: leave it and close its files (`fuser -vm {0}` lists who), or use --lazy")]
    InUse(PathBuf),
    /// Reading it would wait for ourselves.
    #[error(
        "{what} {path} lies on the flist mounted on {mountpoint}: serving it would wait for itself. Choose a {what} elsewhere"
    )]
    OwnMount {
        /// Cache or source.
        what: &'static str,
        /// Where it is.
        path: PathBuf,
        /// Which mount.
        mountpoint: PathBuf,
    },
    /// The mount would hide what it is served from.
    #[error("mounting on {mountpoint} would hide the {what} {path}: choose another directory")]
    Hides {
        /// Cache or source.
        what: &'static str,
        /// Where it is.
        path: PathBuf,
        /// Where the mount was to be.
        mountpoint: PathBuf,
    },
    /// The machine has no FUSE.
    #[error(
        "{FUSE_DEVICE} cannot be opened: load the kernel module `fuse`, or pass the device into the container"
    )]
    NoFuse(#[source] io::Error),
    /// This user may not use FUSE.
    #[error("{FUSE_DEVICE} may not be opened by this user: its mode should be 0666, as udev sets it")]
    FuseForbidden(#[source] io::Error),
    /// The system refused.
    #[error("{action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// What it said.
        #[source]
        source: io::Error,
    },
}

impl MountError {
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> MountError {
        move |source| MountError::Io { action, path: path.to_owned(), source }
    }
}

/// Hits of the cache's tiers, in frames.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Hits {
    /// Found decoded in memory.
    pub memory: u64,
    /// Found in the disk tier.
    pub disk: u64,
}

/// What is mounted and what it has done since.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MountStatus {
    /// Process that serves it.
    pub pid: u32,
    /// CID of the flist.
    #[serde(rename = "ref")]
    pub reference: String,
    /// Where it is mounted.
    pub mountpoint: PathBuf,
    /// How it reaches the kernel.
    pub mode: Mode,
    /// Folder of the cache.
    pub cache: PathBuf,
    /// Bytes of contents given to the kernel.
    pub bytes_read: u64,
    /// Stored bytes taken from sources, metadata included.
    pub bytes_fetched: u64,
    /// Read requests of the kernel.
    pub requests: u64,
    /// Reads that ended in an error.
    pub errors: u64,
    /// Hits of the cache.
    pub hits: Hits,
    /// Each source and what it gave.
    pub sources: Vec<SourceStats>,
}

/// A mount that is served. Its device is its identity: paths come and go, and others may mount over them.
pub(super) struct Mount {
    pub(super) location: Location,
    reference: String,
    mode: Mode,
    fs: Arc<Filesystem>,
    session: Mutex<Option<Session<Edge>>>,
}

/// Between a mount and looking for it in the table there must be no other.
static MOUNTING: Mutex<()> = Mutex::new(());

impl Mount {
    /// Mounts `fs`; the kernel waits until [`Mount::serve`] starts to answer.
    pub(super) fn start(
        spec: &MountSpec,
        mountpoint: &Mountpoint,
        fs: Arc<Filesystem>,
        cache_dir: &Path,
        runtime: &tokio::runtime::Handle,
    ) -> Result<Mount, MountError> {
        let reference = fs.image().id.to_string();
        let failed = |action| MountError::io(action, &mountpoint.path);
        let pusher = Pusher::start(fs.clone()).map_err(failed("starting a thread for"))?;
        let edge = Edge::new(fs.clone(), runtime.clone(), pusher.clone(), spec.allow_other);
        let source = super::mountpoint::source(&reference, cache_dir);
        let (session, location) = {
            let _alone = MOUNTING.lock();
            let before = Before::new(&source).map_err(failed("reading the mount table for"))?;
            let session = open_session(edge, spec, mountpoint, &before, source.clone())?;
            (session, before.added(&mountpoint.path).map_err(failed("finding the mount on"))?)
        };
        pusher.connect(session.notifier());
        let read_ahead = if spec.source_options.cache_local { READ_AHEAD_REMOTE } else { READ_AHEAD_LOCAL };
        set_read_ahead(&location.device, read_ahead);
        let session = Mutex::new(Some(session));
        Ok(Mount { location, reference, mode: spec.mode, fs, session })
    }

    /// Runs the session on threads of its own and calls `ended` when it is over: somebody has unmounted it, or it broke,
    /// and then what is left of it is detached.
    pub(super) fn serve(&self, ended: impl FnOnce() + Send + 'static) -> Result<(), MountError> {
        let Some(session) = self.session.lock().take() else { return Ok(()) };
        let location = self.location.clone();
        let serve = move || {
            if let Err(error) = session.run() {
                tracing::error!(mountpoint = %location.mountpoint.display(), %error, "the FUSE session broke");
            }
            detach(&location);
            ended();
        };
        let thread = std::thread::Builder::new().name("g8-session".into()).spawn(serve);
        thread.map(drop).map_err(|e| {
            detach(&self.location);
            MountError::io("starting a thread for", &self.location.mountpoint)(e)
        })
    }

    /// Unmounts it wherever it is seen: properly where that works, else by detaching it.
    pub(super) fn end(&self) {
        for path in self.location.everywhere().unwrap_or_default() {
            if self.location.unmount(&path, false).is_err()
                && let Err(error) = self.location.unmount(&path, true)
            {
                tracing::error!(mountpoint = %path.display(), %error, "not unmounted");
            }
        }
    }

    pub(super) fn status(&self, cache: &Path) -> MountStatus {
        let counters = self.fs.counters();
        let sources = self.fs.sources().snapshot();
        MountStatus {
            pid: std::process::id(),
            reference: self.reference.clone(),
            mountpoint: self.location.mountpoint.clone(),
            mode: self.mode,
            cache: cache.to_owned(),
            bytes_read: counters.bytes_read.load(Ordering::Relaxed),
            bytes_fetched: sources.iter().map(|s| s.bytes).sum(),
            requests: counters.requests.load(Ordering::Relaxed),
            errors: counters.errors.load(Ordering::Relaxed),
            hits: Hits {
                memory: counters.memory_hits.load(Ordering::Relaxed),
                disk: counters.disk_hits.load(Ordering::Relaxed),
            },
            sources,
        }
    }
}

/// Mounts and shakes hands: as root by mount(2), else through fusermount3.
///
/// Root does not leave the mount to fuser, since fuser unmounts the path once more when a session ends and could hit
/// what somebody has mounted there since.
fn open_session(
    edge: Edge,
    spec: &MountSpec,
    mountpoint: &Mountpoint,
    before: &Before<'_>,
    source: String,
) -> Result<Session<Edge>, MountError> {
    let failed = || MountError::io("mounting on", &mountpoint.path);
    let acl = if spec.allow_other { SessionACL::All } else { SessionACL::Owner };
    let mut config = Config::default();
    config.acl = acl;
    config.n_threads = Some(std::thread::available_parallelism().map_or(2, usize::from).clamp(2, 8));
    config.clone_fd = true;
    if !rustix::process::geteuid().is_root() {
        // The helper is setuid, but fuser opens the device itself before it asks the helper to mount.
        open_device()?;
        config.mount_options = helper_options(spec, source);
        return Session::new(edge, &mountpoint.path, &config).map_err(failed());
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
    let target = format!("/proc/self/fd/{}", mountpoint.directory.as_raw_fd());
    let failed_mount = failed();
    rustix::mount::mount(&source, target, "fuse.flist", flags, &*data).map_err(|e| failed_mount(e.into()))?;
    Session::from_fd(edge, device.into(), acl, config).map_err(|e| {
        if let Ok(location) = before.added(&mountpoint.path) {
            detach(&location);
        }
        failed()(e)
    })
}

/// Takes away what is left of a mount that nobody serves any more. Device numbers are given out again at once, so what
/// is alive under this one is another mount already.
fn detach(location: &Location) {
    for path in location.everywhere().unwrap_or_default() {
        if !super::mountpoint::is_dead(&path) {
            continue;
        }
        if let Err(error) = location.unmount(&path, true) {
            tracing::warn!(mountpoint = %path.display(), %error, "a dead mount stays");
        }
    }
}

fn open_device() -> Result<File, MountError> {
    let device = File::options().read(true).write(true).open(FUSE_DEVICE);
    device.map_err(|e| match e.kind() {
        io::ErrorKind::PermissionDenied => MountError::FuseForbidden(e),
        _ => MountError::NoFuse(e),
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

/// Raises the kernel's read-ahead, which neither FUSE nor fuser can ask for (both stop at 128 KiB). Needs root; without
/// it the mount is only slower.
fn set_read_ahead(device: &str, kib: u32) {
    if let Err(error) = std::fs::write(format!("/sys/class/bdi/{device}/read_ahead_kb"), kib.to_string()) {
        tracing::debug!(device, %error, "read-ahead stays at the kernel's default");
    }
}
