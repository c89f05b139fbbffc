//! Errands: what is carried out inside of a container without a program of the container.
//!
//! A copy of this process does each of them, and ends. It has one thread as its original has, so it may do what any program
//! does; what it may not was given up before it was made. Like its original it cannot be traced from inside.

use std::io::{self, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use super::children::{Children, read_bytes};
use super::start::Failure;
use crate::command::errand;
use crate::spawner::protocol::Event;

impl Children {
    /// Starts an errand from a memfd with it in JSON, and perhaps the file that it works on. Its first end gives what comes
    /// back.
    pub fn errand(&mut self, slot: u64, tag: String, fds: Vec<OwnedFd>) -> Event {
        match start(fds) {
            Ok((pid, ends)) => {
                let started_ms = self.add(slot, tag, pid, ends, None);
                Event::Spawned { slot, pid, started_ms }
            }
            Err(failure) => failure.event(slot),
        }
    }
}

fn start(fds: Vec<OwnedFd>) -> Result<(i32, [OwnedFd; 2]), Failure> {
    let at = |step: &'static str| move |e: io::Error| Failure(step.into(), e);
    let mut fds = fds.into_iter();
    let json = fds.next().ok_or(io::ErrorKind::InvalidInput.into()).and_then(read_bytes);
    let json = json.map_err(at("read the errand"))?;
    let file = fds.next();
    let (ours, theirs) = UnixStream::pair().map_err(at("make a socket for the answer"))?;
    let (err, err_writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map_err(|e| Failure("make a pipe".into(), e.into()))?;
    // SAFETY: this process has one thread, so the copy is whole.
    match unsafe { libc::fork() } {
        -1 => Err(Failure("make a process".into(), io::Error::last_os_error())),
        0 => {
            let done = catch_unwind(AssertUnwindSafe(|| run(&json, file, &theirs, &err_writer)));
            // SAFETY: nothing of the original's is closed, removed or written at its end.
            unsafe { libc::_exit(i32::from(!matches!(done, Ok(Ok(()))))) }
        }
        pid => Ok((pid, [ours.into(), err])),
    }
}

/// The copy. What it says on standard error is why there is no answer.
fn run(json: &[u8], file: Option<OwnedFd>, reply: &UnixStream, err: &OwnedFd) -> io::Result<()> {
    let kept = file.as_ref().map_or(reply.as_raw_fd(), AsRawFd::as_raw_fd);
    let (low, high) = (kept.min(reply.as_raw_fd()), kept.max(reply.as_raw_fd()));
    // SAFETY: the set is a local. What is closed belongs to values of the original, which nobody drops or uses here.
    unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut none);
        if libc::setpgid(0, 0) != 0
            || libc::sigprocmask(libc::SIG_SETMASK, &none, std::ptr::null_mut()) != 0
            || libc::dup2(err.as_raw_fd(), libc::STDERR_FILENO) == -1
        {
            return Err(io::Error::last_os_error());
        }
        // The sockets of container-init, and all that its other children have.
        for (first, last) in [(3, low - 1), (low + 1, high - 1), (high + 1, i32::MAX)] {
            if first <= last && libc::close_range(first as u32, last as u32, 0) != 0 {
                return Err(io::Error::last_os_error());
            }
        }
    }
    let (bytes, opened) = errand::carry_out(json, file);
    let sent = send_first(reply, &bytes, opened.as_ref())?;
    (&*reply).write_all(&bytes[sent..])
}

/// Sends the beginning, and with it the descriptor.
fn send_first(reply: &UnixStream, bytes: &[u8], opened: Option<&OwnedFd>) -> io::Result<usize> {
    let fds: Vec<_> = opened.iter().map(|fd| fd.as_fd()).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(io::Error::other("a descriptor has no room"));
    }
    Ok(sendmsg(reply, &[io::IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL)?)
}
