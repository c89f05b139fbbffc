//! What is asked of a mount, and what is told of it.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use g8_cache::{BlockId, SourceStats};
use serde::{Deserialize, Serialize};

use super::MountError;
use crate::format::RunConfig;
use crate::replay::ProfileStatus;
use crate::source::{SourceOptions, Spec};

/// How a mount reaches the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// `kernel` where it works, else `fuse`.
    #[default]
    Auto,
    /// The kernel mounts the tree as EROFS and asks only for contents, through a private FUSE mount: root, Linux 6.12.
    Kernel,
    /// The whole tree over FUSE: works everywhere, also without root.
    Fuse,
}

impl std::fmt::Display for Mode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Mode::Auto => "auto",
            Mode::Kernel => "kernel",
            Mode::Fuse => "fuse",
        })
    }
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
    /// Let other users in where FUSE would keep them out; the tree's own permissions hold.
    pub allow_other: bool,
    /// How long a read, and the opening of the image, may take.
    pub deadline: Duration,
    /// The profile of what will be read first.
    pub profile: Option<BlockId>,
    /// Record what is read, to make a profile of it.
    pub record: bool,
}

impl MountSpec {
    /// The flist's.
    pub(super) fn id(&self) -> Result<BlockId, MountError> {
        self.reference.parse().map_err(|source| MountError::Reference(self.reference.clone(), source))
    }

    /// How its sources are opened by a time.
    pub(super) fn open_by(&self, time: Instant) -> SourceOptions {
        SourceOptions { open_by: Some(time), ..self.source_options }
    }

    /// Folders and files of this machine that are read to serve the mount.
    pub(super) fn local_sources(&self) -> impl Iterator<Item = &Path> {
        self.sources.iter().filter_map(Spec::local_path)
    }

    /// Whether blocks come a long way, or are treated as if they did. What is recorded is for those.
    pub(super) fn is_remote(&self) -> bool {
        self.record || self.source_options.cache_local || self.sources.iter().any(Spec::is_remote)
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
    /// What to run in it, as whoever packed it says.
    #[serde(default)]
    pub config: RunConfig,
    /// The architecture of its programs, as OCI names it, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arch: Option<String>,
    /// Where it is mounted.
    pub mountpoint: PathBuf,
    /// How it reaches the kernel; never `auto`.
    pub mode: Mode,
    /// Why `auto` did not take mode `kernel`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<String>,
    /// Time to get and judge tree and map, in milliseconds.
    pub open_ms: f64,
    /// Time from there until the mount could be used, in milliseconds.
    pub mount_ms: f64,
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
    /// By which `id=` the log tells of the last of them that it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// Hits of the cache.
    pub hits: Hits,
    /// Each source and what it gave.
    pub sources: Vec<SourceStats>,
    /// The profile that is followed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<ProfileStatus>,
}
