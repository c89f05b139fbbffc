//! The input of a job on a terminal: the redis list `input:ID`, to which the administrator pushes: named users write nothing
//! but their queues.
//!
//! An entry is an object in JSON: `{"data": TEXT}` is typed, `{"rows": N, "cols": N}` is the new size. One at a time is
//! taken, and the next when the terminal took it, so what a program does not read stays in the list.

use std::io;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::time::Duration;

use serde::Deserialize;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, oneshot};

use crate::process::{Size, watch};
use crate::redis::{Access, Link, one};

/// Most bytes of an entry.
const ENTRY_MAX: usize = 64 << 10;
/// How long one wait for an entry takes, in seconds.
const WAIT: &str = "5";
/// Pause after a failure.
const PAUSE: Duration = Duration::from_millis(200);

/// Entries of `job.input` that wait.
const WAITING: usize = 64;

/// What is done to a terminal.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum Entry {
    /// It is of this size now.
    Size(Size),
    /// Something is typed.
    Data {
        /// What.
        data: String,
    },
}

/// The way to a terminal, for as long as this lives.
#[derive(Debug)]
pub struct Input {
    /// What is done to it.
    pub entries: mpsc::Sender<Entry>,
    _ends: oneshot::Sender<()>,
}

/// Passes input on for as long as the result lives.
pub fn feed(access: &Access, key: String, terminal: OwnedFd) -> io::Result<Input> {
    let (entries, mut typed) = mpsc::channel(WAITING);
    let (ends, ended) = oneshot::channel();
    let mut link = Link::new(access).map_err(io::Error::other)?;
    let terminal = watch(terminal)?;
    tokio::spawn(async move {
        // Also in the middle of what a program did not read while it lived, and now nobody does.
        tokio::select! {
            () = pass(&mut link, &key, &terminal, &mut typed) => {}
            _ = ended => {}
        }
        drop(terminal);
        // What nobody reads any more.
        if let Err(e) = link.query::<()>(&one("DEL", &[&key])).await {
            tracing::warn!("{key} stays: {e}");
        }
    });
    Ok(Input { entries, _ends: ends })
}

/// Until the terminal is gone, or nobody is left who types.
async fn pass(link: &mut Link, key: &str, terminal: &AsyncFd<OwnedFd>, typed: &mut mpsc::Receiver<Entry>) {
    let wait = one("BLPOP", &[key, WAIT]);
    loop {
        let popped = {
            // Not given up in between: what it has taken out of the list would be lost.
            let mut popped = pin!(link.query::<(Option<(String, Vec<u8>)>,)>(&wait));
            loop {
                tokio::select! {
                    popped = &mut popped => break popped,
                    entry = typed.recv() => {
                        let Some(entry) = entry else { return };
                        if act(terminal, entry).await.is_err() {
                            return;
                        }
                    }
                }
            }
        };
        let raw = match popped {
            Ok((Some((_, raw)),)) => raw,
            Ok((None,)) => continue,
            Err(e) => {
                tracing::debug!("no input from {key}: {e}");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let entry = serde_json::from_slice::<Entry>(&raw).ok().filter(|_| raw.len() <= ENTRY_MAX);
        let Some(entry) = entry.filter(Entry::is_sound) else {
            tracing::warn!("an entry of {key} is dropped: it is no data and no size");
            continue;
        };
        if act(terminal, entry).await.is_err() {
            return;
        }
    }
}

impl Entry {
    /// Whether it can be done.
    pub fn is_sound(&self) -> bool {
        match self {
            Self::Size(size) => size.is_sound(),
            Self::Data { data } => data.len() <= ENTRY_MAX,
        }
    }
}

async fn act(terminal: &AsyncFd<OwnedFd>, entry: Entry) -> io::Result<()> {
    match entry {
        Entry::Size(size) => resize(terminal.get_ref(), size),
        Entry::Data { data } => write(terminal, data.as_bytes()).await,
    }
}

async fn write(terminal: &AsyncFd<OwnedFd>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let mut guard = terminal.ready(Interest::WRITABLE).await?;
        // Once nobody has it any more it says so again and again, and takes nothing: who tries for ever keeps a processor busy.
        let nobody = guard.ready().is_write_closed();
        match guard.try_io(|fd| Ok(rustix::io::write(fd, bytes)?)) {
            Ok(count) => bytes = &bytes[count?..],
            Err(_would_block) if nobody => return Err(io::ErrorKind::BrokenPipe.into()),
            Err(_would_block) => {}
        }
    }
    Ok(())
}

fn resize(terminal: &OwnedFd, size: Size) -> io::Result<()> {
    Ok(rustix::termios::tcsetwinsize(terminal, size.into())?)
}
