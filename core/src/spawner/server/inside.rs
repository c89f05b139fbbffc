//! `container-init`: the first process of a container, a spawner for what runs in there.
//!
//! It is a copy of the spawner outside, made without exec: the container needs no file of ours, and shows none. It has the one
//! thread that made it, and the other one of its original holds no lock, so it may go on as a normal program. What it may not do any more was given up before: it has
//! the rights that the container has. Its manager is at the other end of a socket that was passed to it; the spawner outside
//! keeps that end open for the next manager.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Instant;

use super::children::Children;
use super::signals::Signals;
use super::{Server, VecDeque};
use crate::say::say;

/// What `ps` shows inside.
const TITLE: &[u8] = b"container-init";

/// Serves the manager until it is told to end; then the kernel ends all that is left in the container.
pub fn run(manager: BorrowedFd<'_>) -> i32 {
    match serve(manager) {
        Ok(()) => 0,
        Err(e) => {
            say(format_args!("container-init: {e}"));
            1
        }
    }
}

fn serve(manager: BorrowedFd<'_>) -> io::Result<()> {
    // The command line of the original names folders of the host.
    if let Err(e) = overwrite_arguments() {
        say(format_args!("container-init: the command line stays that of the spawner: {e}"));
    }
    let mut server = Server {
        signals: Signals::catch()?,
        listener: None,
        manager: Some(manager.try_clone_to_owned()?),
        inbox: VecDeque::new(),
        outbox: VecDeque::new(),
        children: Children::new()?,
        alone_since: Instant::now(),
        is_signalled: false,
    };
    while server.turn(None)? {}
    Ok(())
}

/// The kernel shows as the command line what lies where the arguments were put (proc_pid_cmdline(5)).
fn overwrite_arguments() -> io::Result<()> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // Fields 48 and 49; those behind the name in brackets begin with the third.
    let fields = stat.rsplit_once(')').map(|(_, fields)| fields.split_ascii_whitespace().skip(45));
    let mut bounds = fields.into_iter().flatten().map_while(|field| field.parse::<usize>().ok());
    let (Some(start), Some(end)) = (bounds.next(), bounds.next()) else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    let length = end
        .checked_sub(start)
        .filter(|length| *length > 0 && start != 0)
        .ok_or(io::ErrorKind::InvalidData)?;
    // SAFETY: the kernel put the arguments of this process there, writable, when it was executed; std copies them when it is
    // asked for them, which nobody does here at the same time, as this process has one thread.
    let arguments =
        unsafe { std::slice::from_raw_parts_mut(std::ptr::with_exposed_provenance_mut::<u8>(start), length) };
    let shown = TITLE.len().min(length - 1);
    arguments.fill(0);
    arguments[..shown].copy_from_slice(&TITLE[..shown]);
    Ok(())
}
