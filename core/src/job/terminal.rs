//! The input of a job on a terminal: the redis list `input:ID`, to which the administrator pushes: named users write nothing
//! but their queues.
//!
//! An entry is an object in JSON: `{"data": TEXT}` is typed, `{"rows": N, "cols": N}` is the new size. One at a time is
//! taken, and the next when the terminal took it, so what a program does not read stays in the list.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use serde::Deserialize;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::oneshot;

use crate::process::{Size, watch};
use crate::redis::{Access, Link, one};

/// Most bytes of an entry.
const ENTRY_MAX: usize = 64 << 10;
/// How long one wait for an entry takes, in seconds.
const WAIT: &str = "5";
/// Pause after a failure.
const PAUSE: Duration = Duration::from_millis(200);

#[derive(Deserialize)]
#[serde(untagged)]
enum Entry {
    Size(Size),
    Data { data: String },
}

/// Passes input on for as long as the result lives.
pub fn feed(access: &Access, key: String, terminal: OwnedFd) -> io::Result<oneshot::Sender<()>> {
    let (here, gone) = oneshot::channel();
    let mut link = Link::new(access).map_err(io::Error::other)?;
    let terminal = watch(terminal)?;
    tokio::spawn(async move {
        tokio::select! {
            _ = gone => {}
            () = pass(&mut link, &key, &terminal) => {}
        }
        // What nobody reads any more.
        if let Err(e) = link.query::<()>(&one("DEL", &[&key])).await {
            tracing::warn!("{key} stays: {e}");
        }
    });
    Ok(here)
}

/// Until the terminal is gone.
async fn pass(link: &mut Link, key: &str, terminal: &AsyncFd<OwnedFd>) {
    loop {
        let popped = link.query::<(Option<(String, Vec<u8>)>,)>(&one("BLPOP", &[key, WAIT])).await;
        let raw = match popped {
            Ok((Some((_, raw)),)) => raw,
            Ok((None,)) => continue,
            Err(e) => {
                tracing::debug!("no input from {key}: {e}");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let entry = serde_json::from_slice(&raw).ok().filter(|_| raw.len() <= ENTRY_MAX);
        let done = match entry {
            Some(Entry::Size(size)) if size.is_sound() => resize(terminal.get_ref(), size),
            Some(Entry::Data { data }) => write(terminal, data.as_bytes()).await,
            Some(Entry::Size(_)) | None => {
                tracing::warn!("an entry of {key} is dropped: it is no data and no size");
                Ok(())
            }
        };
        if done.is_err() {
            return;
        }
    }
}

async fn write(terminal: &AsyncFd<OwnedFd>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let write = |fd: &OwnedFd| Ok::<_, io::Error>(rustix::io::write(fd, bytes)?);
        let count = terminal.async_io(Interest::WRITABLE, write).await?;
        bytes = &bytes[count..];
    }
    Ok(())
}

fn resize(terminal: &OwnedFd, size: Size) -> io::Result<()> {
    Ok(rustix::termios::tcsetwinsize(terminal, size.into())?)
}
