//! Containers: their steps, their isolation, their first process.
//!
//! [`run`] is the throwaway container of `flist run`: a read-only root filesystem, a layer in memory over it, one command.
//! [`Container`] is one of the node's, whose first process is a program of the caller's that starts others.
//!
//! Both clone one child straight into new namespaces. The child, PID 1 in there, builds the root filesystem ([`init`] lists
//! the steps) on mounts that the caller hands over ([`start`]). Every mount lives in the child's private mount namespace
//! and no directory is made on the host, so there is nothing to clean up: when PID 1 dies the kernel kills the rest of the
//! container and drops its namespaces, also after `kill -9` of the caller.
//!
//! ```text
//! caller ── clone3 ──> init, PID 1: INIT STEPS ── clone3 ──> command: COMMAND STEPS, execve
//!    │  ── link: mounts with mapped ids, then "go" ──> │
//!    │  <── link: the step that failed and its errno, "built", "stopped" ──┘
//!    └─ pidfd: signals in, exit status out
//! ```
//!
//! Why clone3 and not unshare + fork: the child is in all namespaces from its first instruction, its pidfd
//! comes without a race, and the caller's own threads keep the namespaces they had. Why not vfork: PID 1 runs
//! on for as long as the container does, and the caller's threads must go on serving the mount it reads.
//!
//! The caller may have threads, so the child's copy of the heap may be locked for ever. Hence [`plan`] allocates
//! every string before the clone, and all code that runs after it (`init`, `command`, `rootfs`, `devices`, `volumes`,
//! `mount`, `privileges`, `confinement`, `link`, `syscall`) makes system calls and nothing else: no allocation, no
//! lock, no log, no panic.
//!
//! Root in a container is nobody outside: a user namespace gives it 65,536 ids of its own ([`ids`]), with which it sees the
//! image through an id-mapped mount; it has docker's 14 capabilities, and [`filter`] refuses calls that change the kernel.
//! A privileged container has none of that.
//!
//! Limits: the terminal of `run` is shared, not proxied, and belongs to the container meanwhile; a file on a standard
//! stream can be opened anew, as `/dev/stdout`, only by whom its mode allows. Capabilities of files have no effect inside. With the host's
//! network a container cannot listen on ports below 1024. Needs root, Linux 5.19, or 6.12 for an image mounted by FUSE,
//! and a host root that is not the initramfs itself, which `pivot_root` refuses.

mod cgroup;
mod command;
mod confinement;
mod container;
mod devices;
mod filter;
mod ids;
mod init;
mod lend;
mod link;
mod mount;
mod plan;
mod privileges;
mod report;
mod rootfs;
mod signals;
mod start;
mod step;
mod syscall;
mod terminal;
#[cfg(test)]
mod tests;
mod user;
mod volumes;

use std::ffi::CString;
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;

use rustix::io::Errno;
use rustix::net::RecvFlags;
use serde::{Deserialize, Serialize};

pub use cgroup::{Limits, bound_processes, remove_cgroup};
pub use container::{Container, News};
use lend::Lent;
use plan::{CommandPlan, Plan};
use report::Report;
use signals::{Blocked, Forwarding};
use start::Started;
use terminal::Terminal;
pub use user::{User, UserError, resolve_user};
pub use volumes::{PlaceError, check_places};

/// Exit code of a child that failed before the command. Nobody sees it, as a report says why.
const EXIT_NOT_STARTED: i32 = 125;
/// Exit code of a command that exists and cannot be executed, as in the shell.
const EXIT_NOT_EXECUTABLE: i32 = 126;
/// Exit code of a command that does not exist, as in the shell.
const EXIT_NOT_FOUND: i32 = 127;
/// A command killed by signal n exits with this + n, as in the shell.
const EXIT_SIGNAL_BASE: i32 = 128;

/// What the container can reach over the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Network {
    /// A network namespace of its own with nothing but `lo`, up, and what the caller puts there.
    None,
    /// The host's network namespace.
    Host,
}

/// Where the container writes to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Upper {
    /// Memory, at most so many bytes.
    Memory {
        /// The size of the tmpfs.
        bytes: u64,
    },
    /// An empty folder that the container has for itself; nobody else may reach it, and its maker removes it.
    Disk {
        /// The folder. It gets `upper` and `work`.
        folder: PathBuf,
    },
}

/// A file or a folder of the host that is shown inside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// On the host. Its owner 0 is the container's root inside, which can leave set-user-ID files of the host's root in what it
    /// may write: show only what nobody on the host executes.
    pub source: PathBuf,
    /// Inside: absolute, made when missing.
    pub target: PathBuf,
    /// Refuse writes.
    pub read_only: bool,
}

/// A file that is written before anything runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigFile {
    /// Inside: absolute, folders made when missing.
    pub path: PathBuf,
    /// All of it.
    pub content: Vec<u8>,
    /// What it is when a volume covers it.
    pub covered: Covered,
}

/// Whether nobody may see a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Covered {
    /// It is an error, EBUSY.
    Refused,
    /// The volume is as good: it comes with one.
    Allowed,
}

/// All that one container needs to know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// The directory with the root filesystem, usually a mounted flist. It is only read.
    pub lower: PathBuf,
    /// Where it writes to.
    pub upper: Upper,
    /// The hostname inside.
    pub hostname: String,
    /// What it can reach over the network.
    pub network: Network,
    /// What is shown inside.
    pub volumes: Vec<Volume>,
    /// What is written there first.
    pub files: Vec<ConfigFile>,
    /// What it may use, and the name of the cgroup that sees to it, which nobody else has.
    pub limits: Option<(String, Limits)>,
    /// Where commands start: absolute, inside, created in the upper layer when missing.
    pub workdir: PathBuf,
    /// The host's root: no user namespace, all capabilities, all system calls, nothing hidden of `/proc` and `/sys`, and
    /// setuid programs and devices work.
    pub privileged: bool,
}

/// A program for a container to run.
#[derive(Clone, Debug)]
pub struct Command {
    /// Entrypoint and command. The first is searched in the container's `PATH` when it has no `/`.
    pub argv: Vec<CString>,
    /// The complete environment, `KEY=VALUE` each.
    pub env: Vec<CString>,
    /// Whom the command runs as; [`resolve_user`] finds it in the image.
    pub user: User,
}

/// Why there is no exit code. The command has not run, or the container broke under it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ContainerError {
    /// The spec asks for something that cannot be.
    #[error("invalid container: {0}")]
    Invalid(&'static str),
    /// A volume or a file has no place.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// The kernel refused one step of the set-up; its answer is the source.
    #[error("cannot {step}")]
    Step {
        /// What was being done, in words that follow "cannot".
        step: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A volume is not there, or is neither a folder nor a file.
    #[error("cannot show {path} inside")]
    Volume {
        /// On the host.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Nobody would keep a limit.
    #[error(
        "a limit cannot be kept: cgroup version 2 has no {controller} controller here (it has: {has}); version 1 may hold \
        it, or the kernel lacks it"
    )]
    NoController {
        /// The one that the limit needs.
        controller: &'static str,
        /// Those that there are.
        has: String,
    },
    /// The system calls of this architecture cannot be filtered.
    #[error("cannot filter system calls: {0}")]
    Filter(String),
}

/// Runs the command to its end and returns its exit code in the shell's style: its own code, 128 + n for
/// signal n, 126 when it is found and cannot be executed, 127 when it is not found (both logged with the
/// cause).
///
/// It blocks the calling thread, which must not be a thread that serves `spec.lower`, and which must live
/// until the end: the container dies with it. Meanwhile HUP, INT, QUIT, TERM, USR1, USR2 and WINCH go to the
/// command, except those that the caller ignores. When several run at once in one process, only the first
/// gets the signals.
pub fn run(spec: &Spec, command: &Command) -> Result<i32, ContainerError> {
    let command_plan = CommandPlan::new(command, spec.privileged)?;
    let plan = Plan::new(spec, Terminal::of_stdin())?;

    let blocked = Blocked::all();
    let mut started =
        start::start(&plan, syscall::SILENT, None, |link| init::command(&plan, &command_plan, link))?;
    let _lent = (!spec.privileged).then(|| Lent::to(started.root() + command.user.uid));
    let forwarding = Forwarding::to(started.init.pidfd.as_fd());
    drop(blocked);

    let outcome = started.go().and_then(|()| follow(&plan, &started));
    let status = started.wait();
    drop(forwarding);
    if let Some(terminal) = &plan.terminal {
        terminal.take_back();
    }
    let status = status.map(|status| {
        let killed_by = status.terminating_signal().unwrap_or_default();
        status.exit_status().unwrap_or(EXIT_SIGNAL_BASE + killed_by)
    });
    match outcome? {
        Some(Report::Failed(failure)) => Err(failure.into()),
        Some(Report::NotExecuted(errno)) => {
            tracing::error!(command = ?command.argv[0], error = %io::Error::from(errno), "cannot execute the command");
            status
        }
        Some(Report::Stopped | Report::Built) | None => status,
    }
}

/// Reads reports until PID 1 is gone, and returns the one that ended the container early, if any.
fn follow(plan: &Plan<'_>, started: &Started) -> Result<Option<Report>, ContainerError> {
    let mut last = None;
    let next = || link::receive_report(&started.link, RecvFlags::empty()).map_err(at("hear from init"));
    while let Some(report) = next()? {
        match (report, &plan.terminal) {
            (Report::Stopped, Some(terminal)) => terminal.suspend(started.init.pidfd.as_fd()),
            (Report::Stopped, None) | (Report::Built, _) => {}
            (Report::Failed(_) | Report::NotExecuted(_), _) => last = Some(report),
        }
    }
    Ok(last)
}

impl From<step::Failure> for ContainerError {
    fn from(failure: step::Failure) -> Self {
        ContainerError::Step { step: failure.step.name(), source: failure.errno.into() }
    }
}

/// Names the step that fails in the caller itself.
fn at(step: &'static str) -> impl Fn(Errno) -> ContainerError {
    move |errno| ContainerError::Step { step, source: errno.into() }
}
