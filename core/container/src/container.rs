//! A container of a node: its first process is a program of the caller's, which starts others.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::RecvFlags;
use rustix::process::{Signal, pidfd_send_signal};

use crate::plan::Plan;
use crate::report::Report;
use crate::start::{self, Started};
use crate::{ContainerError, Spec, at, init, link};

/// What became of the building of a container.
#[derive(Debug)]
pub enum News {
    /// Nothing yet.
    Building,
    /// All is built; [`Container::go`] lets programs start.
    Built,
    /// A step failed; init ends.
    Failed(ContainerError),
    /// Init has ended, or is about to.
    Gone,
}

/// A container that is built or runs. Dropping it ends it.
#[derive(Debug)]
pub struct Container(Started);

impl Container {
    /// Clones init, which builds the container, waits for [`go`](Self::go), gives up what the container shall not have,
    /// and is `serve` then, with `kept` open. No other thread of the caller holds a lock, ever, or
    /// `serve` makes system calls only. Init's end
    /// sends SIGCHLD.
    pub fn start(
        spec: &Spec,
        kept: BorrowedFd<'_>,
        serve: impl FnOnce() -> i32,
    ) -> Result<Self, ContainerError> {
        let plan = Plan::new(spec, None)?;
        let inside = |link: &OwnedFd| match init::confine(&plan) {
            Ok(()) => serve(),
            Err(failure) => {
                link::send_report(link, Report::Failed(failure));
                crate::EXIT_NOT_STARTED
            }
        };
        start::start(&plan, libc::SIGCHLD, Some(kept), inside).map(Self)
    }

    /// Init's pid out here.
    pub fn pid(&self) -> i32 {
        self.0.init.pid.as_raw_pid()
    }

    /// Readable when there is news.
    pub fn link(&self) -> BorrowedFd<'_> {
        self.0.link.as_fd()
    }

    /// What has happened; does not wait.
    pub fn news(&self) -> News {
        match link::receive_report(&self.0.link, RecvFlags::DONTWAIT) {
            Ok(Some(Report::Built)) => News::Built,
            Ok(Some(Report::Failed(failure))) => News::Failed(failure.into()),
            Ok(Some(Report::NotExecuted(_) | Report::Stopped)) | Err(Errno::AGAIN) => News::Building,
            Ok(None) => News::Gone,
            Err(errno) => News::Failed(at("hear from init")(errno)),
        }
    }

    /// The network namespace, for what shall be in it before programs start.
    pub fn network(&self) -> io::Result<OwnedFd> {
        // Init is not reaped before this value is told of its end, so the pid is its own.
        File::open(format!("/proc/{}/ns/net", self.pid())).map(OwnedFd::from)
    }

    /// Lets the container's programs start.
    pub fn go(&self) -> Result<(), ContainerError> {
        self.0.go()
    }

    /// Ends everything inside; the caller reaps init.
    pub fn kill(&self) {
        // It fails only for what has ended.
        let _ = pidfd_send_signal(&self.0.init.pidfd, Signal::KILL);
    }

    /// The caller has reaped init: lets go of what the container held.
    pub fn ended(mut self) {
        self.0.forget();
    }
}
