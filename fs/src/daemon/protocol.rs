//! Messages between `flist` and its daemon: one JSON document per line, a request and its reply.

use std::io::{self, BufRead, Write};
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use g8_cache::{BlockId, CacheStats, SourceStats};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::carrier::send_with;
use crate::engine::{Mode, MountSpec, MountStatus};
use crate::format::RunConfig;
use crate::source::{SourceOptions, Spec};

/// Longest request and reply; a reply lists every mount.
const MAX_REQUEST: u64 = 64 * 1024;
const MAX_REPLY: u64 = 16 * 1024 * 1024;

/// What a client may ask.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Request {
    /// Mount an flist.
    Mount(MountRequest),
    /// Give what goes on with a mount when this daemon has died. A descriptor comes with the reply.
    Keep {
        /// Where it is mounted.
        mountpoint: PathBuf,
    },
    /// Go on with a mount whose daemon has died; the descriptor that was kept comes with it.
    Resume(MountRequest),
    /// End a mount.
    Umount {
        /// Where.
        mountpoint: PathBuf,
        /// Detach it although it is in use.
        lazy: bool,
    },
    /// List the mounts.
    Mounts,
    /// What was read of a mount that records it.
    Recorded {
        /// Where it is mounted.
        mountpoint: PathBuf,
    },
    /// What the flist of a mount says is to be run.
    Config {
        /// Where it is mounted.
        mountpoint: PathBuf,
    },
    /// The sources of a mount.
    SourceList {
        /// Where it is mounted.
        mountpoint: PathBuf,
    },
    /// Have a mount ask one more source.
    SourceAdd {
        /// Where it is mounted.
        mountpoint: PathBuf,
        /// The source, with an absolute path.
        source: Spec,
        /// How long opening it may take, in milliseconds.
        deadline_ms: u64,
    },
    /// Have a mount ask a source no more.
    SourceRemove {
        /// Where it is mounted.
        mountpoint: PathBuf,
        /// Its spec string.
        source: String,
        /// Also when it is the last one.
        force: bool,
    },
    /// State of the cache.
    CacheStats,
    /// Shrink the cache to its budget now, and perhaps to a new one.
    CacheGc {
        /// New budget in bytes.
        budget: Option<u64>,
    },
    /// Drop all unpinned blocks.
    CacheClear,
    /// Give what the cache holds on the socket for blocks, for as long as the client keeps this connection.
    Blocks,
}

/// A mount as it travels; see [`MountSpec`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MountRequest {
    /// CID of the flist.
    #[serde(rename = "ref")]
    pub reference: String,
    /// Absolute path.
    pub mountpoint: PathBuf,
    /// The sources, with absolute paths.
    pub sources: Vec<Spec>,
    /// Copy blocks of local stores into the disk tier.
    pub cache_local: bool,
    /// How it reaches the kernel.
    pub mode: Mode,
    /// Honour set-user-ID.
    pub suid: bool,
    /// Honour devices.
    pub dev: bool,
    /// Let other users in.
    pub allow_other: bool,
    /// Deadline of a read in milliseconds.
    pub deadline_ms: u64,
    /// End the mount when the client's connection ends.
    pub hold: bool,
    /// The profile of what will be read first.
    #[serde(default)]
    pub profile: Option<BlockId>,
    /// Record what is read.
    #[serde(default)]
    pub record: bool,
}

impl MountRequest {
    /// The same for the engine.
    pub fn spec(&self) -> MountSpec {
        MountSpec {
            reference: self.reference.clone(),
            mountpoint: self.mountpoint.clone(),
            sources: self.sources.clone(),
            source_options: SourceOptions { cache_local: self.cache_local, open_by: None },
            mode: self.mode,
            suid: self.suid,
            dev: self.dev,
            allow_other: self.allow_other,
            deadline: Duration::from_millis(self.deadline_ms),
            profile: self.profile,
            record: self.record,
        }
    }
}

impl From<MountSpec> for MountRequest {
    fn from(spec: MountSpec) -> Self {
        MountRequest {
            reference: spec.reference,
            mountpoint: spec.mountpoint,
            sources: spec.sources,
            cache_local: spec.source_options.cache_local,
            mode: spec.mode,
            suid: spec.suid,
            dev: spec.dev,
            allow_other: spec.allow_other,
            deadline_ms: spec.deadline.as_millis() as u64,
            hold: false,
            profile: spec.profile,
            record: spec.record,
        }
    }
}

/// A mount, and what it was made of.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Kept {
    /// As it is.
    pub status: MountStatus,
    /// As the next daemon is asked for it.
    pub request: MountRequest,
}

/// The answer to a request.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// The mount is usable.
    Mounted(Box<MountStatus>),
    /// What is to be kept of a mount; a descriptor comes with it.
    Kept(Box<Kept>),
    /// It is done.
    Done,
    /// All mounts.
    Mounts(Vec<MountStatus>),
    /// The blocks that were read, by their numbers in the order of the first time.
    Recorded(Vec<u32>),
    /// What the flist of a mount says is to be run.
    Config(RunConfig),
    /// The sources of a mount, in the order they are asked.
    Sources(Vec<SourceStats>),
    /// State of the cache.
    Cache(Box<CacheStats>),
    /// It could not be done.
    Refused(Refusal),
}

/// Why something could not be done.
#[derive(Clone, Debug, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// The error and its causes, joined by colons.
    pub message: String,
}

impl Refusal {
    pub(super) fn new(error: &dyn std::error::Error) -> Self {
        let mut message = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            let text = error.to_string();
            // Transparent errors repeat what they wrap.
            if !message.ends_with(&text) {
                message.push_str(": ");
                message.push_str(&text);
            }
            cause = error.source();
        }
        Refusal { message }
    }
}

pub(super) fn send<T: Serialize>(mut to: impl Write, message: &T) -> io::Result<()> {
    to.write_all(&line(message)?)
}

/// The same, with a descriptor if there is one.
pub(super) fn send_along<T: Serialize>(
    mut to: &UnixStream,
    message: &T,
    descriptor: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    match descriptor {
        Some(descriptor) => send_with(to, &line(message)?, descriptor),
        None => to.write_all(&line(message)?),
    }
}

fn line<T: Serialize>(message: &T) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    Ok(line)
}

/// The next request; `None` when the client has gone.
pub(super) fn receive_request(from: impl BufRead) -> io::Result<Option<Request>> {
    receive(from, MAX_REQUEST)
}

/// The reply; `None` when the daemon has gone.
pub(super) fn receive_reply(from: impl BufRead) -> io::Result<Option<Reply>> {
    receive(from, MAX_REPLY)
}

fn receive<T: DeserializeOwned>(from: impl BufRead, most: u64) -> io::Result<Option<T>> {
    let mut line = Vec::new();
    from.take(most).read_until(b'\n', &mut line)?;
    if line.is_empty() {
        return Ok(None);
    }
    if line.last() != Some(&b'\n') {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a message was too long or cut off"));
    }
    Ok(Some(serde_json::from_slice(&line)?))
}
