//! The throwaway container of `flist run`: a read-only root filesystem, a layer in memory over it, one
//! command.
//!
//! [`run`] clones one child straight into new namespaces. The child, PID 1 in there, builds the root
//! filesystem ([`init`] lists the steps), starts the command and stays to reap and to forward signals. Every
//! mount lives in the child's private mount namespace and no directory is made on the host, so there is
//! nothing to clean up: when PID 1 dies the kernel kills the rest of the container and drops its namespaces,
//! also after `kill -9` of the caller.
//!
//! ```text
//! caller ── clone3 ──> init, PID 1: INIT STEPS ── clone3 ──> command: COMMAND STEPS, execve
//!    │  <── pipe: the step that failed and its errno, or "stopped" ──┘
//!    └─ pidfd: signals in, exit status out
//! ```
//!
//! Why clone3 and not unshare + fork: the child is in all namespaces from its first instruction, its pidfd
//! comes without a race, and the caller's own threads keep the namespaces they had. Why not vfork: PID 1 runs
//! on for as long as the container does, and the caller's threads must go on serving the mount it reads.
//!
//! The caller has threads, so the child's copy of the heap may be locked for ever. Hence [`plan`] allocates
//! every string before the clone, and all code that runs after it (`init`, `command`, `rootfs`, `devices`,
//! `mount`, `privileges`, `confinement`, `syscall`) makes system calls and nothing else: no allocation, no
//! lock, no log, no panic.
//!
//! Limits: there is no user namespace, no seccomp filter and no cgroup limit. Root in the container is the
//! host's root with docker's 14 capabilities on mounts that open no devices: good against accidents and
//! careless images, not a wall against hostile ones. The terminal is shared, not proxied. Needs root, Linux
//! 5.12, and a host root that is not the initramfs itself, which `pivot_root` refuses.

mod command;
mod confinement;
mod devices;
mod init;
mod mount;
mod plan;
mod privileges;
mod report;
mod rootfs;
mod signals;
mod step;
mod syscall;
mod terminal;
#[cfg(test)]
mod tests;
mod user;

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{WaitId, WaitIdOptions, waitid};

use plan::Plan;
use report::Report;
use signals::{Blocked, Forwarding};
use terminal::Terminal;
pub use user::{User, UserError, resolve_user};

/// Exit code of a child that failed before the command. Nobody sees it, as a report says why.
const EXIT_NOT_STARTED: i32 = 125;
/// Exit code of a command that exists and cannot be executed, as in the shell.
const EXIT_NOT_EXECUTABLE: i32 = 126;
/// Exit code of a command that does not exist, as in the shell.
const EXIT_NOT_FOUND: i32 = 127;
/// A command killed by signal n exits with this + n, as in the shell.
const EXIT_SIGNAL_BASE: i32 = 128;

/// What the command can reach over the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// A network namespace of its own with nothing but `lo`, up.
    None,
    /// The host's network namespace.
    Host,
}

/// All that one container needs to know.
#[derive(Clone, Debug)]
pub struct Spec {
    /// The directory with the root filesystem, usually a mounted flist. It is only read.
    pub lower: PathBuf,
    /// How much the container may write, in bytes: the size of the tmpfs that holds the upper layer.
    pub upper_bytes: u64,
    /// The host name inside.
    pub hostname: String,
    /// Entrypoint and command. The first is searched in the container's `PATH` when it has no `/`.
    pub argv: Vec<CString>,
    /// The complete environment, `KEY=VALUE` each.
    pub env: Vec<CString>,
    /// Where the command starts: absolute, inside, created in the upper layer when missing.
    pub workdir: PathBuf,
    /// Whom the command runs as; [`resolve_user`] finds it in the image.
    pub user: User,
    /// What the command can reach over the network.
    pub network: Network,
    /// Keeps all capabilities, hides nothing of `/proc` and `/sys`, and lets setuid programs and devices
    /// work.
    pub privileged: bool,
}

/// Why there is no exit code. The command has not run, or the container broke under it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ContainerError {
    /// The spec asks for something that cannot be.
    #[error("invalid container: {0}")]
    Invalid(&'static str),
    /// The kernel refused one step of the set-up; its answer is the source.
    #[error("cannot {step}")]
    Step {
        /// What was being done, in words that follow "cannot".
        step: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// Runs the command to its end and returns its exit code in the shell's style: its own code, 128 + n for
/// signal n, 126 when it is found and cannot be executed, 127 when it is not found (both logged with the
/// cause).
///
/// It blocks the calling thread, which must not be a thread that serves `spec.lower`, and which must live
/// until the end: the container dies with it. Meanwhile HUP, INT, QUIT, TERM, USR1, USR2 and WINCH go to the
/// command, except those that the caller ignores. When several run at once in one process, only the first
/// gets the signals.
pub fn run(spec: &Spec) -> Result<i32, ContainerError> {
    let plan = Plan::new(spec, Terminal::of_stdin())?;
    let (reports, report_end) = pipe_with(PipeFlags::CLOEXEC).map_err(at("create the report pipe"))?;

    // The child starts with every signal blocked, so none is lost or runs a handler of the caller in there.
    let blocked = Blocked::all();
    let init = syscall::spawn(plan.namespaces, syscall::SILENT, || init::run(&plan, &report_end))
        .map_err(at("create the namespaces"))?;
    drop(report_end);
    let forwarding = Forwarding::to(init.pidfd.as_fd());
    drop(blocked);

    let outcome = follow(&plan, &reports, init.pidfd.as_fd());
    let status = reap(&init.pidfd);
    drop(forwarding);
    if let Some(terminal) = &plan.terminal {
        terminal.take_back();
    }
    match outcome? {
        Some(Report::Failed(failure)) => {
            Err(ContainerError::Step { step: failure.step.name(), source: failure.errno.into() })
        }
        Some(Report::NotExecuted(errno)) => {
            tracing::error!(command = ?spec.argv[0], error = %io::Error::from(errno), "cannot execute the command");
            status
        }
        Some(Report::Stopped) | None => status,
    }
}

/// Reads reports until PID 1 is gone, and returns the one that ended the container early, if any.
fn follow(
    plan: &Plan<'_>,
    reports: &OwnedFd,
    init: BorrowedFd<'_>,
) -> Result<Option<Report>, ContainerError> {
    let mut last = None;
    while let Some(report) = Report::read(reports).map_err(at("read the report pipe"))? {
        match (report, &plan.terminal) {
            (Report::Stopped, Some(terminal)) => terminal.suspend(init),
            (Report::Stopped, None) => {}
            (Report::Failed(_) | Report::NotExecuted(_), _) => last = Some(report),
        }
    }
    Ok(last)
}

/// Waits for PID 1. Its end is the end of the container: the kernel has killed and reaped all others by then.
fn reap(pidfd: &OwnedFd) -> Result<i32, ContainerError> {
    // `__WALL`, as a child without an exit signal is invisible otherwise.
    let options = WaitIdOptions::EXITED | WaitIdOptions::from_bits_retain(libc::__WALL.cast_unsigned());
    let status = loop {
        match waitid(WaitId::PidFd(pidfd.as_fd()), options) {
            Err(Errno::INTR) => {}
            other => break other.map_err(at("wait for the container"))?,
        }
    };
    // No status is impossible here: only a wait that does not block returns without one.
    let status = status.ok_or(Errno::CHILD).map_err(at("wait for the container"))?;
    let killed_by = status.terminating_signal().unwrap_or_default();
    Ok(status.exit_status().unwrap_or(EXIT_SIGNAL_BASE + killed_by))
}

/// Names the step that fails in the caller itself.
fn at(step: &'static str) -> impl Fn(Errno) -> ContainerError {
    move |errno| ContainerError::Step { step, source: errno.into() }
}
