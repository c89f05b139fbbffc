//! The output of a process that is no job: every message goes to the log, and one function hears it too.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use tokio::net::unix::pipe::Receiver;

use super::{Message, Messages, level};
use crate::log::{CHUNK, Logs, Record, now_ms};

/// Reads both ends until they are closed. `hear` gets each message.
pub fn drain(
    ends: [OwnedFd; 2],
    source: Arc<str>,
    logs: Arc<Logs>,
    hear: impl Fn(&Message) + Clone + Send + Sync + 'static,
) -> io::Result<()> {
    for (end, plain) in ends.into_iter().zip([level::STDOUT, level::STDERR]) {
        let receiver = Receiver::from_owned_fd(end)?;
        let (source, logs, hear) = (source.clone(), logs.clone(), hear.clone());
        tokio::spawn(async move {
            let mut messages = Messages::new(plain);
            let mut open = true;
            while open {
                let _ = receiver.readable().await;
                let room = logs.room().await;
                let mut records = Vec::new();
                let mut take = |message: Message| {
                    let text = message.text.as_str().into();
                    let (time, source, level) = (now_ms(), source.clone(), message.level);
                    records.push(Record { time, source, level, text, place: None });
                    hear(&message);
                };
                open = read(&receiver, &mut messages, &mut take);
                if !open {
                    messages.finish(&mut take);
                }
                logs.put(records, room);
            }
        });
    }
    Ok(())
}

/// Reads once; false at the end.
fn read(receiver: &Receiver, messages: &mut Messages, take: &mut impl FnMut(Message)) -> bool {
    let mut bytes = [0; CHUNK];
    match receiver.try_read(&mut bytes) {
        Ok(0) => false,
        Ok(count) => {
            messages.feed(&bytes[..count], take);
            true
        }
        Err(e) => e.kind() == io::ErrorKind::WouldBlock,
    }
}
