//! Why something with a mount did not work, in words that say what to do.

use std::io;
use std::path::{Path, PathBuf};

use g8_cache::{AddError, BadId, RemoveError};

use crate::image::OpenError;
use crate::source::SpecError;

pub(super) const FUSE_DEVICE: &str = "/dev/fuse";

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
    /// The source is not added.
    #[error("source {spec} of {mountpoint} is not added")]
    NotAdded {
        /// The source.
        spec: String,
        /// Of which mount.
        mountpoint: PathBuf,
        /// Why.
        #[source]
        source: AddError,
    },
    /// Nobody asked for it when it was mounted.
    #[error("what is read of {0} is not recorded")]
    NotRecorded(PathBuf),
    /// Nobody can go on with it.
    #[error("the flist mounted on {mountpoint} is not served on: {why}")]
    NotResumed {
        /// Where it is.
        mountpoint: PathBuf,
        /// Why not.
        why: &'static str,
    },
    /// The source is not removed.
    #[error("source {spec} of {mountpoint} is not removed")]
    NotRemoved {
        /// The source.
        spec: String,
        /// Of which mount.
        mountpoint: PathBuf,
        /// Why.
        #[source]
        source: RemoveError,
    },
    /// The machine has no FUSE.
    #[error(
        "{FUSE_DEVICE} cannot be opened: load the kernel module `fuse`, or pass the device into the container"
    )]
    NoFuse(#[source] io::Error),
    /// This user may not use FUSE.
    #[error("{FUSE_DEVICE} may not be opened by this user: its mode should be 0666, as udev sets it")]
    FuseForbidden(#[source] io::Error),
    /// The kernel does not mount the tree.
    #[error("mode kernel: {step} failed; --mode fuse works on every kernel")]
    Kernel {
        /// What failed.
        step: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The mount table must be able to name the cache.
    #[error("mode kernel: the path of the cache {0} is not UTF-8: choose another one, or --mode fuse")]
    NotUtf8(PathBuf),
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
    pub(super) fn kernel<E: Into<io::Error>>(step: &'static str) -> impl FnOnce(E) -> MountError {
        move |source| MountError::Kernel { step, source: source.into() }
    }

    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> MountError {
        move |source| MountError::Io { action, path: path.to_owned(), source }
    }
}
