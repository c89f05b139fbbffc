//! The processes that the spawner started: starting, signalling, reaping, handing over.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{SystemTime, UNIX_EPOCH};

use g8_container::Container;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::pty::OpenptFlags;
use serde::de::DeserializeOwned;

use super::super::protocol::{Event, Exit, TooMany};
use super::crowd::Crowds;
use super::start::{Failure, Starter};
use crate::process::{Process, Size};

/// Most bytes of a process in JSON: what a command can carry, escaped at its worst.
const PROCESS_MAX: u64 = 16 << 20;

/// Files that a process may open, unless it asks for more.
const FILES: u64 = 1024;

/// See the module's text.
pub struct Children {
    pub(super) by_slot: BTreeMap<u64, Child>,
    /// Of those that have not ended.
    pub(super) by_pid: HashMap<i32, u64>,
    pub(super) next_slot: u64,
    /// How many were reaped that are nobody's here: what others left behind.
    pub(super) orphans: u64,
    /// What a process may open; the spawner itself takes all it can.
    files: Rlimit,
    starter: Starter,
    pub(super) crowds: Crowds,
}

pub(super) struct Child {
    pub(super) tag: String,
    pub(super) pid: i32,
    pub(super) started_ms: u64,
    /// The reading ends of its output; of a container, the socket to the spawner inside, and its network namespace.
    pub(super) ends: [OwnedFd; 2],
    /// What the manager read of them, for the next one.
    pub(super) kept: Option<[OwnedFd; 3]>,
    pub(super) exit: Option<Exit>,
    /// Nobody wants to know of its end.
    pub(super) forgotten: bool,
    /// A container, until it has ended.
    pub(super) container: Option<Container>,
    /// A container that is not built yet.
    pub(super) building: bool,
    /// Most processes and threads of it and all that it started, if there is a bound.
    pub(super) most: Option<u64>,
    /// It had more, and is being ended.
    pub(super) too_many: Option<TooMany>,
}

/// What was started: its pid, the reading ends of its output, and its bound.
type Started = (i32, [OwnedFd; 2], Option<u64>);

impl Children {
    /// None yet. Raises the number of files that this process may open.
    pub fn new() -> io::Result<Self> {
        let files = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: files.maximum, maximum: files.maximum })?;
        // The manager, which starts this process, has raised it already: a process gets what is usual.
        let files = Rlimit { current: Some(files.maximum.map_or(FILES, |most| most.min(FILES))), ..files };
        let (starter, crowds) = (Starter::new()?, Crowds::new()?);
        let (by_slot, by_pid) = (BTreeMap::new(), HashMap::new());
        Ok(Self { by_slot, by_pid, next_slot: 1, orphans: 0, files, starter, crowds })
    }

    /// Starts a process, which may lie in the first memfd; another may be its standard input.
    pub fn spawn(&mut self, slot: u64, tag: String, process: Option<Process>, fds: Vec<OwnedFd>) -> Event {
        match self.start(slot, process, fds) {
            Ok((pid, ends, most)) => {
                let started_ms = self.add(slot, tag, pid, ends, None);
                if let (Some(most), Some(child)) = (most, self.by_slot.get_mut(&slot)) {
                    child.most = Some(most);
                }
                Event::Spawned { slot, pid, started_ms }
            }
            Err(failure) => failure.event(slot),
        }
    }

    /// Remembers what was started, and when.
    pub(super) fn add(
        &mut self,
        slot: u64,
        tag: String,
        pid: i32,
        ends: [OwnedFd; 2],
        container: Option<Container>,
    ) -> u64 {
        let started_ms = now_ms();
        self.next_slot = self.next_slot.max(slot.saturating_add(1));
        self.by_pid.insert(pid, slot);
        let building = container.is_some();
        let (kept, exit, forgotten, most, too_many) = (None, None, false, None, None);
        let child =
            Child { tag, pid, started_ms, ends, kept, exit, forgotten, container, building, most, too_many };
        self.by_slot.insert(slot, child);
        started_ms
    }

    fn start(&mut self, slot: u64, process: Option<Process>, fds: Vec<OwnedFd>) -> Result<Started, Failure> {
        let at = |step: &'static str| move |e: io::Error| Failure(step.into(), e);
        let mut fds = fds.into_iter();
        let process = match process {
            Some(process) => judge(process),
            None => fds.next().ok_or(io::ErrorKind::InvalidInput.into()).and_then(read_json).and_then(judge),
        };
        let process = process.map_err(at("read what to start"))?;
        let stdin = fds.next();
        let most = process.processes;
        if let Some(most) = most {
            self.crowds.add(most).map_err(at("watch how many processes there are"))?;
        }
        let mark = most.map(|_| self.crowds.marks.of(slot));
        let pipe = || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(io::Error::from);
        let (err, err_writer) = pipe().map_err(at("make a pipe"))?;
        if let Some(size) = process.terminal {
            // There is nothing to read from the other stream.
            let (terminal, its) = terminal(size).map_err(at("make a terminal"))?;
            let pid = self.starter.start(&process, (Some(&its), [&its, &its]), self.files, mark)?;
            return Ok((pid, [terminal, err], most));
        }
        let (out, out_writer) = pipe().map_err(at("make a pipe"))?;
        let streams = (stdin.as_ref(), [&out_writer, &err_writer]);
        let pid = self.starter.start(&process, streams, self.files, mark)?;
        Ok((pid, [out, err], most))
    }

    /// Keeps for the next manager what this one reads of the output.
    pub fn keep(&mut self, slot: u64, fds: Vec<OwnedFd>) {
        if let Some(child) = self.by_slot.get_mut(&slot) {
            child.kept = fds.try_into().ok();
        }
    }

    /// Signals a process that has not ended and its group. As it is not reaped, its pid is still its own. A container ends,
    /// whatever the signal.
    pub fn signal(&self, slot: u64, signal: i32) {
        if let Some(child) = self.by_slot.get(&slot).filter(|child| child.exit.is_none()) {
            if let Some(container) = &child.container {
                return container.kill();
            }
            // SAFETY: no pointers. It fails only when there is nobody, or for a signal that there is not.
            unsafe { libc::kill(-child.pid, signal) };
        }
    }

    /// Lets go of what has ended, or of what has not when it ends.
    pub fn forget(&mut self, slot: u64) {
        match self.by_slot.get_mut(&slot) {
            Some(child) if child.exit.is_none() => child.forgotten = true,
            Some(_) => drop(self.by_slot.remove(&slot)),
            None => {}
        }
    }

    /// Reaps everything that ended, orphans of jobs too.
    pub fn reap(&mut self, outbox: &mut VecDeque<Event>) {
        loop {
            let Some(pid) = ended() else { return };
            self.clear_group(pid);
            let mut status = 0;
            // SAFETY: the pointer is to a local.
            if unsafe { libc::waitpid(pid, &mut status, libc::WNOHANG) } != pid {
                return;
            }
            let exit = match libc::WIFEXITED(status) {
                true => Exit::Code(libc::WEXITSTATUS(status)),
                false => Exit::Signal(libc::WTERMSIG(status)),
            };
            let Some(slot) = self.by_pid.remove(&pid) else {
                self.orphans += 1;
                continue;
            };
            // What it said before it ended.
            self.hear(slot, outbox);
            if let Some(child) = self.by_slot.get_mut(&slot) {
                // Nobody else may have its ids and its cgroup before it is reaped.
                if let Some(container) = child.container.take() {
                    container.ended();
                }
                if child.building {
                    // Its manager was told why.
                    self.by_slot.remove(&slot);
                    continue;
                }
                let exit = child.too_many.map_or(exit, Exit::TooMany);
                if let Some(most) = child.most {
                    self.crowds.remember(slot, &child.tag, most);
                }
                child.exit = Some(exit);
                outbox.push_back(Event::Exited { slot, exit });
                if child.forgotten {
                    self.by_slot.remove(&slot);
                }
            }
        }
    }

    /// Kills what a service leaves in its group: it would be in the way of the next run. As the leader is not reaped yet,
    /// the number of the group is still its own.
    fn clear_group(&self, leader: i32) {
        let child = self.by_pid.get(&leader).and_then(|slot| self.by_slot.get(slot));
        if child.is_some_and(|child| child.tag.starts_with("service ")) {
            // SAFETY: no pointers.
            unsafe { libc::kill(-leader, libc::SIGKILL) };
        }
    }

    /// Everything a new manager has to know.
    pub fn tell_held(&mut self, hello: u64, outbox: &mut VecDeque<Event>) {
        // The last manager forgot them; this one has not yet.
        self.by_slot.values_mut().for_each(|child| child.forgotten = false);
        // What was being built for the last manager is of no use to this one, which never hears of it: not even that it is
        // built, which may be on its way.
        for child in self.by_slot.values_mut().filter(|child| child.building) {
            child.forgotten = true;
            if let Some(container) = &child.container {
                container.kill();
            }
        }
        let held = self.by_slot.iter().filter(|(_, child)| !child.building);
        outbox.extend(held.map(|(&slot, child)| Event::Held {
            hello,
            slot,
            tag: child.tag.clone(),
            pid: child.pid,
            started_ms: child.started_ms,
            exit: child.exit,
            kept: child.kept.is_some(),
        }));
        outbox.push_back(Event::Ready { hello, next_slot: self.next_slot });
    }

    /// The descriptors that go with a message.
    pub fn ends_for(&self, event: &Event) -> Vec<BorrowedFd<'_>> {
        match event {
            Event::Held { slot, .. } | Event::Spawned { slot, .. } => self.by_slot.get(slot).map(|child| {
                child.ends.iter().chain(child.kept.iter().flatten()).map(|fd| fd.as_fd()).collect()
            }),
            Event::Ready { .. }
            | Event::Failed { .. }
            | Event::Exited { .. }
            | Event::Cleared { .. }
            | Event::Pong { .. } => None,
        }
        .unwrap_or_default()
    }
}

/// A child that has ended and is not reaped.
fn ended() -> Option<i32> {
    // SAFETY: the structure is a local, and si_pid is valid after waitid.
    unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        let done = libc::waitid(libc::P_ALL, 0, &mut info, options);
        (done == 0 && info.si_pid() != 0).then(|| info.si_pid())
    }
}

/// A new terminal: our end, and that of a process.
fn terminal(size: Size) -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let ours = rustix::pty::openpt(flags)?;
    rustix::pty::unlockpt(&ours)?;
    rustix::termios::tcsetwinsize(&ours, size.into())?;
    let its = rustix::pty::ioctl_tiocgptpeer(&ours, flags)?;
    Ok((ours, its))
}

/// What a memfd says in JSON.
pub(super) fn read_json<T: DeserializeOwned>(memfd: OwnedFd) -> io::Result<T> {
    Ok(serde_json::from_slice(&read_bytes(memfd)?)?)
}

/// What a memfd says.
pub(super) fn read_bytes(memfd: OwnedFd) -> io::Result<Vec<u8>> {
    rustix::fs::seek(&memfd, rustix::fs::SeekFrom::Start(0))?;
    let mut bytes = Vec::new();
    File::from(memfd).take(PROCESS_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn judge(process: Process) -> io::Result<Process> {
    match process.fault() {
        None => Ok(process),
        Some(fault) => Err(io::Error::new(io::ErrorKind::InvalidInput, fault)),
    }
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}
