//! The caller's terminal, lent to the command for its run: job control as a shell does it.
//!
//! The command gets a process group of its own in the foreground, so Ctrl-C and the window size reach it and
//! nobody else. Ctrl-Z stops it; the caller then takes the terminal back and stops itself, for its own shell
//! to see.
//!
//! Limit: the terminal is the host's own, without a pty between. A privileged command can push characters into its input
//! where `dev.tty.legacy_tiocsti` is 1; to others the filter of system calls refuses it.

use std::cell::Cell;
use std::ffi::CString;
use std::os::fd::BorrowedFd;

use rustix::process::{Pid, Signal, pidfd_send_signal};

use super::signals::Blocked;
use super::syscall::{STDIN, foreground_group, own_group, set_foreground_group, stop_self};

/// A terminal on stdin of which this process has the foreground.
pub(super) struct Terminal {
    /// The device's path on the host, when it has one.
    pub(super) path: Option<CString>,
    /// The caller's process group, which has the foreground before and after.
    group: Pid,
    /// The group in the container that had the foreground when it stopped; none while it has it.
    stopped: Cell<Option<Pid>>,
}

impl Terminal {
    /// The terminal on stdin; none when there is none or it is not ours to give, as in a background job.
    pub(super) fn of_stdin() -> Option<Self> {
        let group = own_group()?;
        if foreground_group(STDIN) != Ok(group.as_raw_pid()) {
            return None;
        }
        let path = rustix::fs::readlink("/proc/self/fd/0", Vec::new()).ok();
        Some(Terminal { path, group, stopped: Cell::new(None) })
    }

    /// Gives the foreground back to the caller's group, if the container has it.
    pub(super) fn take_back(&self) {
        if self.stopped.get().is_none() {
            put_foreground(self.group);
        }
    }

    /// The command has stopped: stops the caller too, and goes on with the command when the shell continues
    /// us.
    pub(super) fn suspend(&self, init: BorrowedFd<'_>) {
        if self.stopped.get().is_none() {
            self.stopped.set(foreground_group(STDIN).ok().and_then(Pid::from_raw));
            put_foreground(self.group);
        }
        stop_self();

        // `fg` has given us the foreground, `bg` has not: then the container goes on without it.
        let foreground = foreground_group(STDIN) == Ok(self.group.as_raw_pid());
        if foreground && let Some(group) = self.stopped.take() {
            put_foreground(group);
        }
        // PID 1 continues the command's whole group, which has no name out here.
        let _ = pidfd_send_signal(init, Signal::CONT);
    }
}

/// In the command: puts its own group, which it leads, into the foreground.
pub(super) fn claim(group: Pid) -> rustix::io::Result<()> {
    set_foreground_group(STDIN, group)
}

/// Changes the foreground from outside of it, which is a SIGTTOU unless blocked. A terminal that is gone has
/// none.
fn put_foreground(group: Pid) {
    let _blocked = Blocked::all();
    let _ = set_foreground_group(STDIN, group);
}
