//! What manager and spawner tell each other: one JSON message a packet of a unix socket, with file descriptors.
//!
//! A process that is too large for a packet lies in a memfd beside the message; its standard input always does.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};

use crate::process::Process;

/// Most bytes of a message.
const MESSAGE_MAX: usize = 8192;
/// Longest name of a process: it has to fit into a message, escaped.
pub const TAG_MAX: usize = 512;
/// Most descriptors beside a message.
const FDS_MAX: usize = 5;

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exit {
    /// By itself, with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// It was killed with all that it had started, as they were too many.
    TooMany(TooMany),
}

/// Too many processes and threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TooMany {
    /// How many they were.
    pub had: u64,
    /// How many they may be.
    pub most: u64,
}

impl std::fmt::Display for TooMany {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { had, most } = self;
        write!(
            f,
            "with all that it started it had {had} processes and threads, more than the {most} that it may have"
        )
    }
}

/// When programs may start in a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Start {
    /// When it is built.
    AtOnce,
    /// At [`Request::Go`].
    WhenTold,
}

/// From the manager.
#[derive(Debug, Serialize, Deserialize)]
pub enum Request {
    /// Start a process. Beside it a memfd with the process in JSON when it is not here, and perhaps one that it reads.
    Spawn {
        /// Number that the manager chose.
        slot: u64,
        /// What the next manager knows it by.
        tag: String,
        /// What to start.
        process: Option<Process>,
    },
    /// Keep three descriptors for the next manager: what was read of the output.
    Keep {
        /// Number of the process.
        slot: u64,
    },
    /// Say that it is well.
    Ping,
    /// Send a signal to a process that has not ended, and to its group.
    Signal {
        /// Its number.
        slot: u64,
        /// The signal.
        signal: i32,
    },
    /// Build a container: a memfd with its [`Spec`](g8_container::Spec) in JSON. [`Event::Spawned`] says that it is built, with a
    /// socket to the spawner inside and its network namespace.
    Contain {
        /// Number that the manager chose.
        slot: u64,
        /// What the next manager knows it by.
        tag: String,
        /// When programs may start in it.
        start: Start,
    },
    /// Carry out an errand: a memfd with it in JSON, and perhaps the file that it works on. The first of the two ends that
    /// [`Event::Spawned`] has gives what comes back.
    Errand {
        /// Number that the manager chose.
        slot: u64,
        /// What the next manager knows it by.
        tag: String,
    },
    /// Let programs start in a container that is built.
    Go {
        /// Its number.
        slot: u64,
    },
    /// Tell all that is held: a new manager is there.
    Hello {
        /// What the answer is known by: one for another manager may lie in the socket.
        hello: u64,
    },
    /// The manager has seen the end of a process.
    Forget {
        /// Its number.
        slot: u64,
    },
    /// Kill whatever is left, and end.
    Finish,
}

impl Request {
    /// The number of what it starts.
    pub fn starts(&self) -> Option<u64> {
        match self {
            Self::Spawn { slot, .. } | Self::Contain { slot, .. } | Self::Errand { slot, .. } => Some(*slot),
            Self::Keep { .. }
            | Self::Ping
            | Self::Signal { .. }
            | Self::Go { .. }
            | Self::Forget { .. }
            | Self::Hello { .. }
            | Self::Finish => None,
        }
    }

    /// Whether it kills what has this number.
    pub fn kills(&self, number: u64) -> bool {
        matches!(self, Self::Signal { slot, signal: libc::SIGKILL } if *slot == number)
    }
}

/// From the spawner.
#[derive(Debug, Serialize, Deserialize)]
pub enum Event {
    /// A process from an earlier manager's time, with both reading ends, and what was read.
    Held {
        /// The hello that this answers.
        hello: u64,
        /// Its number.
        slot: u64,
        /// Its name.
        tag: String,
        /// Its pid, which is its group too.
        pid: i32,
        /// When it was started, in ms since 1970.
        started_ms: u64,
        /// How it ended, if it did.
        exit: Option<Exit>,
        /// Whether there are three descriptors of what was read.
        kept: bool,
    },
    /// It is well.
    Pong {
        /// How many processes it has reaped that others had left behind.
        orphans: u64,
    },
    /// All held processes are told.
    Ready {
        /// The hello that this answers.
        hello: u64,
        /// Numbers from here on are free.
        next_slot: u64,
    },
    /// What a process had left behind when it ended were too many, and are killed.
    Cleared {
        /// Its name.
        tag: String,
        /// How many.
        too_many: TooMany,
    },
    /// A process runs; beside it the reading ends of its standard output and error.
    Spawned {
        /// Its number.
        slot: u64,
        /// Its pid, which is its group too.
        pid: i32,
        /// When it was started, in ms since 1970.
        started_ms: u64,
    },
    /// A process could not be started.
    Failed {
        /// Its number.
        slot: u64,
        /// What failed.
        step: String,
        /// Why, as errno.
        errno: i32,
    },
    /// A process ended.
    Exited {
        /// Its number.
        slot: u64,
        /// How.
        exit: Exit,
    },
}

/// Whether a message is small enough for a packet.
pub fn fits<T: Serialize>(message: &T) -> bool {
    serde_json::to_vec(message).is_ok_and(|bytes| bytes.len() <= MESSAGE_MAX)
}

/// Sends one message; `WouldBlock` when the other side is behind.
pub fn send<T: Serialize>(socket: BorrowedFd<'_>, message: &T, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let bytes = serde_json::to_vec(message)?;
    if bytes.len() > MESSAGE_MAX || fds.len() > FDS_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a message that is too large"));
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many descriptors"));
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    sendmsg(socket, &[IoSlice::new(&bytes)], &mut ancillary, flags)?;
    Ok(())
}

/// Receives one message, `None` at the end of the connection; `WouldBlock` when there is none.
pub fn receive<T: for<'a> Deserialize<'a>>(socket: BorrowedFd<'_>) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut bytes = [0; MESSAGE_MAX];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let received = recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, flags)?;
    let mut fds = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(passed) = message {
            fds.extend(passed);
        }
    }
    if received.bytes == 0 {
        return Ok(None);
    }
    Ok(Some((serde_json::from_slice(&bytes[..received.bytes])?, fds)))
}
