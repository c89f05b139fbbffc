//! The processes that the spawner started: starting, signalling, reaping, handing over.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use g8_container::Container;
use rustix::process::{Gid, Resource, Rlimit, Uid, getrlimit, setrlimit};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use serde::de::DeserializeOwned;

use super::super::protocol::{Event, Exit};
use crate::process::{Inside, Process};

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
    /// What a process may open; the spawner itself takes all it can.
    files: Rlimit,
}

pub(super) struct Child {
    pub(super) tag: String,
    pub(super) pid: i32,
    pub(super) started_ms: u64,
    /// The reading ends of its output; of a container, the socket to the spawner inside, and its network namespace.
    pub(super) ends: [OwnedFd; 2],
    pub(super) exit: Option<Exit>,
    /// Nobody wants to know of its end.
    pub(super) forgotten: bool,
    /// A container, until it has ended.
    pub(super) container: Option<Container>,
    /// A container that is not built yet.
    pub(super) building: bool,
}

/// Where starting a process failed.
pub(super) struct Failure(pub(super) String, pub(super) io::Error);

impl Failure {
    /// What the manager is told.
    pub(super) fn event(self, slot: u64) -> Event {
        let Failure(mut step, error) = self;
        step.truncate(step.floor_char_boundary(1024));
        Event::Failed { slot, step, errno: error.raw_os_error().unwrap_or(libc::EINVAL) }
    }
}

impl Children {
    /// None yet. Raises the number of files that this process may open.
    pub fn new() -> io::Result<Self> {
        let files = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: files.maximum, maximum: files.maximum })?;
        // The manager, which starts this process, has raised it already: a process gets what is usual.
        let files = Rlimit { current: Some(files.maximum.map_or(FILES, |most| most.min(FILES))), ..files };
        Ok(Self { by_slot: BTreeMap::new(), by_pid: HashMap::new(), next_slot: 1, files })
    }

    /// Starts a process: a memfd with it, perhaps one with its standard input.
    pub fn spawn(&mut self, slot: u64, tag: String, fds: Vec<OwnedFd>) -> Event {
        match self.start(fds) {
            Ok((pid, ends)) => {
                let started_ms = self.keep(slot, tag, pid, ends, None);
                Event::Spawned { slot, pid, started_ms }
            }
            Err(failure) => failure.event(slot),
        }
    }

    /// Remembers what was started, and when.
    pub(super) fn keep(
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
        let child = Child { tag, pid, started_ms, ends, exit: None, forgotten: false, container, building };
        self.by_slot.insert(slot, child);
        started_ms
    }

    fn start(&self, fds: Vec<OwnedFd>) -> Result<(i32, [OwnedFd; 2]), Failure> {
        let at = |step: &str| {
            let step = step.to_string();
            move |e: io::Error| Failure(step, e)
        };
        let mut fds = fds.into_iter();
        let process = fds.next().ok_or(io::ErrorKind::InvalidInput.into()).and_then(read_process);
        let process = process.map_err(at("read what to start"))?;
        let stdin = fds.next().map_or(Stdio::null(), Stdio::from);
        let pipe = || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(io::Error::from);
        let (out, out_writer) = pipe().map_err(at("make a pipe"))?;
        let (err, err_writer) = pipe().map_err(at("make a pipe"))?;
        let dir = if process.dir.is_empty() { "/" } else { &process.dir };
        let files = self.files;
        let mut command = Command::new(&process.argv[0]);
        if process.inside.is_some() {
            command.env_clear();
        }
        command.args(&process.argv[1..]).envs(&process.env).current_dir(dir);
        command.stdin(stdin).stdout(out_writer).stderr(err_writer).process_group(0);
        // SAFETY: only system calls; this process has one thread.
        unsafe { command.pre_exec(move || prepare(files, process.inside.as_ref())) };
        match command.spawn() {
            Ok(child) => Ok((child.id() as i32, [out, err])),
            Err(e) if !Path::new(dir).is_dir() => Err(Failure(format!("enter the folder {dir:?}"), e)),
            Err(e) => Err(Failure(format!("start {:?}", process.argv[0]), e)),
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
            let Some(slot) = self.by_pid.remove(&pid) else { continue };
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
    pub fn tell_held(&mut self, outbox: &mut VecDeque<Event>) {
        // The last manager forgot them; this one has not yet.
        self.by_slot.values_mut().for_each(|child| child.forgotten = false);
        // What was being built for the last manager is of no use to this one.
        self.by_slot
            .values()
            .filter(|child| child.building)
            .filter_map(|child| child.container.as_ref())
            .for_each(Container::kill);
        let held = self.by_slot.iter().filter(|(_, child)| !child.building);
        outbox.extend(held.map(|(&slot, child)| Event::Held {
            slot,
            tag: child.tag.clone(),
            pid: child.pid,
            started_ms: child.started_ms,
            exit: child.exit,
        }));
        outbox.push_back(Event::Ready { next_slot: self.next_slot });
    }

    /// The descriptors that go with a message.
    pub fn ends_for(&self, event: &Event) -> Vec<BorrowedFd<'_>> {
        match event {
            Event::Held { slot, .. } | Event::Spawned { slot, .. } => {
                self.by_slot.get(slot).map(|child| child.ends.iter().map(|end| end.as_fd()).collect())
            }
            Event::Ready { .. } | Event::Failed { .. } | Event::Exited { .. } => None,
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

/// In the child before exec: it dies with the spawner, has no signal blocked, may open as much as usual, and is whom it shall
/// be.
fn prepare(files: Rlimit, inside: Option<&Inside>) -> io::Result<()> {
    // SAFETY: the set is a local that sigemptyset initialises; nothing else is pointed to.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        if libc::sigprocmask(libc::SIG_SETMASK, &set, std::ptr::null_mut()) != 0
            || libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0) != 0
        {
            return Err(io::Error::last_os_error());
        }
    }
    setrlimit(Resource::Nofile, files)?;
    if let Some(Inside { uid, gid, groups }) = inside {
        let groups: Vec<Gid> = groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
        let (uid, gid) = (Uid::from_raw(*uid), Gid::from_raw(*gid));
        // Each needs the rights that the next one takes. They end the wish to die with the spawner, which in a container is
        // the first process, whose end is everybody's.
        set_thread_groups(&groups)?;
        set_thread_res_gid(gid, gid, gid)?;
        set_thread_res_uid(uid, uid, uid)?;
    }
    Ok(())
}

/// What a memfd says in JSON.
pub(super) fn read_json<T: DeserializeOwned>(memfd: OwnedFd) -> io::Result<T> {
    rustix::fs::seek(&memfd, rustix::fs::SeekFrom::Start(0))?;
    let mut json = Vec::new();
    File::from(memfd).take(PROCESS_MAX).read_to_end(&mut json)?;
    Ok(serde_json::from_slice(&json)?)
}

fn read_process(memfd: OwnedFd) -> io::Result<Process> {
    let process: Process = read_json(memfd)?;
    match process.fault() {
        None => Ok(process),
        Some(fault) => Err(io::Error::new(io::ErrorKind::InvalidInput, fault)),
    }
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}
