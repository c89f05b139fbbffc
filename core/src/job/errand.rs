//! The node's side of an errand: it goes into a container, and its answer comes back.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde_json::Value;

use crate::command::errand::{Errand, REPLY_MAX, read_reply};
use crate::command::{Answering, CommandError};
use crate::domain::container::Container;
use crate::process::watch;
use crate::spawner::{Child, SpawnError};

/// How long one takes at most, whatever its command says: a file system in there may hang.
const LIMIT: Duration = Duration::from_secs(600);

/// Has a container carry out a command. Dropping it ends what does so.
pub fn go(container: Arc<Container>, errand: Errand, on_file: bool) -> Answering {
    Box::pin(async move {
        let carried = tokio::time::timeout(LIMIT, carry(&container, &errand, on_file)).await;
        carried.unwrap_or_else(|_| {
            Err(CommandError::unavailable(format!("{} did not end within {LIMIT:?}", errand.command)))
        })
    })
}

async fn carry(container: &Arc<Container>, errand: &Errand, on_file: bool) -> Result<String, CommandError> {
    let _place = container.errands.places.acquire().await.map_err(CommandError::internal_because)?;
    // Two callers of one file take turns.
    let _turn = if on_file { Some(container.errands.file_turn.lock().await) } else { None };
    let file = match on_file {
        true => {
            let name = errand.arguments.get("fd").and_then(Value::as_str).unwrap_or_default();
            Some(container.errands.files.lend(name)?)
        }
        false => None,
    };
    let json = serde_json::to_vec(errand).map_err(CommandError::internal_because)?;
    let tag = format!("errand {}", errand.command);
    let child = container.spawner.errand(&json, file, &tag).await.map_err(|error| refused(errand, error))?;
    let mut ended = Ended(child);
    let Some([reply, said]) = ended.0.output.take() else {
        return Err(CommandError::internal("the errand has no answer to read"));
    };
    let heard = hear(reply).await;
    let (reply, opened) =
        heard.map_err(|e| CommandError::internal(format!("no answer of {}", errand.command)).because(e))?;
    let answer = match reply.is_empty() {
        true => {
            return Err(CommandError::internal(format!("{} died in the container", errand.command))
                .because(last_words(&said)));
        }
        false => read_reply(reply)?,
    };
    match opened {
        None => Ok(answer),
        Some(fd) => {
            let files = container.errands.files.clone();
            let name = tokio::task::spawn_blocking(move || files.keep(fd.into()));
            let name = name.await.map_err(CommandError::internal_because)??;
            Ok(Value::String(name).to_string())
        }
    }
}

fn refused(errand: &Errand, error: SpawnError) -> CommandError {
    let command = &errand.command;
    match error {
        SpawnError::Gone => CommandError::unavailable(format!("{command}: its container has ended")),
        failed @ SpawnError::Failed { .. } => {
            CommandError::unavailable(format!("{command} does not start in the container")).because(failed)
        }
    }
}

/// All that comes, to the end, and a descriptor.
async fn hear(reply: OwnedFd) -> io::Result<(Vec<u8>, Option<OwnedFd>)> {
    rustix::io::ioctl_fionbio(&reply, true)?;
    let reply = watch(reply)?;
    let (mut bytes, mut opened) = (Vec::new(), None);
    loop {
        let mut ready = reply.readable().await?;
        let mut buffer = [0; 16 << 10];
        let received = ready.try_io(|fd| {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut ancillary = RecvAncillaryBuffer::new(&mut space);
            let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
            let got = recvmsg(fd.as_fd(), &mut [IoSliceMut::new(&mut buffer)], &mut ancillary, flags)?;
            for message in ancillary.drain() {
                if let RecvAncillaryMessage::ScmRights(fds) = message {
                    opened = fds.last().or(opened.take());
                }
            }
            Ok(got.bytes)
        });
        match received {
            Err(_would_block) => {}
            Ok(Ok(0)) => return Ok((bytes, opened)),
            Ok(Ok(length)) => bytes.extend_from_slice(&buffer[..length]),
            Ok(Err(e)) => return Err(e),
        }
        if bytes.len() > REPLY_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "more than an answer has"));
        }
    }
}

/// The beginning of what it said, which is little, at its end.
fn last_words(said: &OwnedFd) -> String {
    let mut buffer = [0; 512];
    let read = rustix::io::ioctl_fionbio(said, true).and_then(|()| rustix::io::read(said, &mut buffer));
    let text = String::from_utf8_lossy(&buffer[..read.unwrap_or_default()]).trim().to_owned();
    if text.is_empty() { "it said nothing".into() } else { text }
}

/// Whoever carries an errand out ends with the interest in it.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.handle().kill_soon();
    }
}
