//! The manager's end of the spawner: starts it when there is none, asks it for processes, hears of their ends.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with, sockopt};
use rustix::process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, oneshot};

use super::protocol::{Event, Exit, Request, TAG_MAX, receive, send};
use crate::process::Process;

/// Requests that wait to be sent; who asks for more waits.
const REQUESTS: usize = 1024;
/// How long a new spawner may take to listen.
const START: Duration = Duration::from_secs(10);
/// How long it may take to kill all that is left.
const FINISH: Duration = Duration::from_secs(3);

/// Why a process was not started.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// The process is at fault.
    #[error("cannot {step}")]
    Failed {
        /// What was tried.
        step: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The spawner is.
    #[error("the spawner is gone")]
    Gone,
}

/// A process that the spawner keeps. Dropping it after its end lets the spawner forget it.
#[derive(Debug)]
pub struct Child {
    slot: u64,
    /// Its pid, which is its group too.
    pub pid: i32,
    /// When it was started, in ms since 1970.
    pub started_ms: u64,
    /// Reading ends of standard output and standard error; they are taken once.
    pub output: Option<[OwnedFd; 2]>,
    exit: oneshot::Receiver<Exit>,
    spawner: Spawner,
}

impl Child {
    /// Waits for its end; `None` when the spawner died, and the process with it.
    pub async fn wait(&mut self) -> Option<Exit> {
        (&mut self.exit).await.ok()
    }

    /// Lets programs start in a container.
    pub async fn go(&self) {
        // Without a spawner there is no container either.
        let _ = self.spawner.requests.send((Request::Go { slot: self.slot }, Vec::new())).await;
    }

    /// What signals it while others wait for it.
    pub fn killer(&self) -> Killer {
        Killer { slot: self.slot, spawner: self.spawner.clone() }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let forget = (Request::Forget { slot: self.slot }, Vec::new());
        // A spawner that never heard of it would keep its descriptors.
        if let Err(mpsc::error::TrySendError::Full(forget)) = self.spawner.requests.try_send(forget)
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let requests = self.spawner.requests.clone();
            runtime.spawn(async move { requests.send(forget).await });
        }
    }
}

/// Sends signals to one process and its group.
#[derive(Clone, Debug)]
pub struct Killer {
    slot: u64,
    spawner: Spawner,
}

impl Killer {
    /// Sends a signal; one to a process that has ended does nothing.
    pub async fn signal(&self, signal: i32) {
        let request = Request::Signal { slot: self.slot, signal };
        // Without a spawner there is no process either: it dies with its parent.
        let _ = self.spawner.requests.send((request, Vec::new())).await;
    }
}

/// Who waits for a process to be there, and for its end.
struct Pending {
    started: Option<(Started, oneshot::Receiver<Exit>)>,
    exited: oneshot::Sender<Exit>,
}

type Started = oneshot::Sender<Result<Child, SpawnError>>;
type Message = (Request, Vec<OwnedFd>);
type Waiting = Arc<parking_lot::Mutex<HashMap<u64, Pending>>>;

/// A handle to the spawner.
#[derive(Clone)]
pub struct Spawner {
    requests: mpsc::Sender<Message>,
    next_slot: Arc<AtomicU64>,
    waiting: Waiting,
    /// The process behind the connection.
    pidfd: Arc<parking_lot::Mutex<Option<OwnedFd>>>,
}

impl std::fmt::Debug for Spawner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Spawner")
    }
}

impl Spawner {
    /// Connects to the spawner of a socket, and starts one first if there is none. Gives the processes that it kept, by
    /// their tags.
    pub async fn connect(socket: &Path, log: &Path) -> io::Result<(Self, Vec<(String, Child)>)> {
        let (requests, queue) = mpsc::channel(REQUESTS);
        let spawner =
            Self { requests, next_slot: Arc::default(), waiting: Waiting::default(), pidfd: Arc::default() };
        let fd = open(socket, log).await?;
        let mut link = Link { place: Some((socket.into(), log.into())), fd };
        *spawner.pidfd.lock() = link.process()?;
        let held = link.hear_held(&spawner).await?;
        tokio::spawn(link.run(spawner.clone(), queue));
        Ok((spawner, held))
    }

    /// Speaks to the spawner inside of a container, over the socket that came with the container. Gives the processes that it
    /// kept.
    pub async fn inside(socket: OwnedFd) -> io::Result<(Self, Vec<(String, Child)>)> {
        let (requests, queue) = mpsc::channel(REQUESTS);
        let spawner =
            Self { requests, next_slot: Arc::default(), waiting: Waiting::default(), pidfd: Arc::default() };
        let mut link = Link { place: None, fd: watch(socket)? };
        let hello = async {
            link.send(&spawner, &Request::Hello, &[]).await?;
            link.hear_held(&spawner).await
        };
        let held = tokio::time::timeout(START, hello).await.map_err(|_| io::ErrorKind::TimedOut)??;
        tokio::spawn(link.run(spawner.clone(), queue));
        Ok((spawner, held))
    }

    /// Builds a container; it is built when this returns, and waits for [`Child::go`].
    pub async fn contain(&self, spec: &g8_container::Spec, tag: &str) -> Result<Child, SpawnError> {
        let json = serde_json::to_vec(spec).map_err(io::Error::from);
        let memfd = json
            .and_then(|json| in_memory(&json))
            .map_err(|source| SpawnError::Failed { step: "describe the container".into(), source })?;
        let tag = tag.to_owned();
        self.ask(|slot| Request::Contain { slot, tag }, vec![memfd]).await
    }

    /// Starts a process. The tag names it to the next manager.
    pub async fn spawn(&self, process: &Process, tag: &str) -> Result<Child, SpawnError> {
        let failed = |step: &str| {
            let step = step.to_string();
            move |source| SpawnError::Failed { step, source }
        };
        if tag.len() > TAG_MAX {
            return Err(failed("name the process")(io::ErrorKind::InvalidInput.into()));
        }
        let json =
            serde_json::to_vec(process).map_err(io::Error::from).map_err(failed("describe the process"))?;
        let mut fds = vec![in_memory(&json).map_err(failed("describe the process"))?];
        if !process.stdin.is_empty() {
            fds.push(in_memory(&process.stdin).map_err(failed("hand over the standard input"))?);
        }
        let tag = tag.to_owned();
        self.ask(|slot| Request::Spawn { slot, tag }, fds).await
    }

    /// Sends a request that makes a child, and waits for it.
    async fn ask(
        &self,
        request: impl FnOnce(u64) -> Request,
        fds: Vec<OwnedFd>,
    ) -> Result<Child, SpawnError> {
        let slot = self.next_slot.fetch_add(1, Ordering::Relaxed);
        let (started, told) = oneshot::channel();
        let (exited, exit) = oneshot::channel();
        self.waiting.lock().insert(slot, Pending { started: Some((started, exit)), exited });
        if self.requests.send((request(slot), fds)).await.is_err() {
            self.waiting.lock().remove(&slot);
            return Err(SpawnError::Gone);
        }
        told.await.unwrap_or(Err(SpawnError::Gone))
    }

    /// Kills all that is left, and the spawner; returns when it is gone. One that hangs, perhaps on a file system whose
    /// server died, is killed, and what it started dies with it.
    pub async fn finish(&self) {
        let finished = async {
            let _ = self.requests.send((Request::Finish, Vec::new())).await;
            self.requests.closed().await;
        };
        if tokio::time::timeout(FINISH, finished).await.is_ok() {
            return;
        }
        tracing::warn!("the spawner does not end: it is killed");
        if let Some(pidfd) = &*self.pidfd.lock()
            && let Err(e) = pidfd_send_signal(pidfd, Signal::KILL)
        {
            tracing::warn!("cannot kill the spawner: {e}");
        }
    }

    fn hear(&self, event: Event, fds: Vec<OwnedFd>) {
        match event {
            Event::Spawned { slot, pid, started_ms } => {
                let started = self.waiting.lock().get_mut(&slot).and_then(|pending| pending.started.take());
                let Some((started, exit)) = started else { return };
                let output = fds.try_into().ok();
                let child = Child { slot, pid, started_ms, output, exit, spawner: self.clone() };
                if let Err(Ok(child)) = started.send(Ok(child)) {
                    // Nobody waits for it any more.
                    let kill = Request::Signal { slot: child.slot, signal: libc::SIGKILL };
                    let _ = self.requests.try_send((kill, Vec::new()));
                }
            }
            Event::Failed { slot, step, errno } => {
                let pending = self.waiting.lock().remove(&slot);
                let source = io::Error::from_raw_os_error(errno);
                if let Some((started, _)) = pending.and_then(|pending| pending.started) {
                    let _ = started.send(Err(SpawnError::Failed { step, source }));
                }
            }
            Event::Exited { slot, exit } => {
                if let Some(pending) = self.waiting.lock().remove(&slot) {
                    let _ = pending.exited.send(exit);
                }
            }
            Event::Held { .. } | Event::Ready { .. } => {}
        }
    }
}

/// The connection.
struct Link {
    /// Where another one can be started, with its log; none inside of a container.
    place: Option<(PathBuf, PathBuf)>,
    fd: AsyncFd<OwnedFd>,
}

impl Link {
    async fn hear_held(&mut self, spawner: &Spawner) -> io::Result<Vec<(String, Child)>> {
        let mut held = Vec::new();
        loop {
            match self.receive().await? {
                (Event::Held { slot, tag, pid, started_ms, exit }, fds) => {
                    let (sender, receiver) = oneshot::channel();
                    let output = fds.try_into().ok();
                    let spawner = spawner.clone();
                    match exit {
                        Some(exit) => drop(sender.send(exit)),
                        None => {
                            let pending = Pending { started: None, exited: sender };
                            spawner.waiting.lock().insert(slot, pending);
                        }
                    }
                    held.push((tag, Child { slot, pid, started_ms, output, exit: receiver, spawner }));
                }
                (Event::Ready { next_slot }, _) => {
                    spawner.next_slot.fetch_max(next_slot, Ordering::Relaxed);
                    return Ok(held);
                }
                (event, fds) => spawner.hear(event, fds),
            }
        }
    }

    /// Carries requests and events until the manager ends. A spawner that died is replaced; its processes died with it.
    async fn run(mut self, spawner: Spawner, mut queue: mpsc::Receiver<Message>) {
        loop {
            let finished = self.carry(&spawner, &mut queue).await;
            spawner.waiting.lock().clear();
            if self.place.is_none() {
                // The container ends, or has ended.
                return;
            }
            if finished {
                if let Err(e) = self.gone().await {
                    tracing::warn!("cannot wait for the end of the spawner: {e}");
                }
                return;
            }
            tracing::error!("the spawner died, and all jobs and services with it: starting another");
            loop {
                match self.reopen(&spawner).await {
                    Ok(()) => break,
                    Err(e) => tracing::error!("cannot start the spawner, next try in a second: {e}"),
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }

    /// Its connection ends a moment before it does.
    async fn gone(&self) -> io::Result<()> {
        match self.process()? {
            Some(pidfd) => watch(pidfd)?.readable().await.map(drop),
            None => Ok(()),
        }
    }

    /// The process at the other end, unless it is gone.
    fn process(&self) -> io::Result<Option<OwnedFd>> {
        match pidfd_open(sockopt::socket_peercred(&self.fd)?.pid, PidfdFlags::NONBLOCK) {
            Ok(pidfd) => Ok(Some(pidfd)),
            Err(rustix::io::Errno::SRCH) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    async fn reopen(&mut self, spawner: &Spawner) -> io::Result<()> {
        let Some((socket, log)) = &self.place else { return Err(io::ErrorKind::NotConnected.into()) };
        self.fd = open(socket, log).await?;
        *spawner.pidfd.lock() = self.process()?;
        self.hear_held(spawner).await.map(drop)
    }

    /// True when the spawner was told to finish, or nobody is left to ask it.
    async fn carry(&mut self, spawner: &Spawner, queue: &mut mpsc::Receiver<Message>) -> bool {
        let mut finishing = false;
        loop {
            tokio::select! {
                received = self.receive() => match received {
                    Ok((event, fds)) => spawner.hear(event, fds),
                    Err(_) => return finishing,
                },
                message = queue.recv(), if !finishing => {
                    let Some((request, fds)) = message else { return true };
                    if matches!(request, Request::Spawn { slot, .. } | Request::Contain { slot, .. } if !spawner.waiting.lock().contains_key(&slot)) {
                        // Its sender was told that the spawner before this one is gone.
                        continue;
                    }
                    finishing = matches!(request, Request::Finish);
                    if self.send(spawner, &request, &fds).await.is_err() {
                        return finishing;
                    }
                }
            }
        }
    }

    async fn receive(&self) -> io::Result<(Event, Vec<OwnedFd>)> {
        loop {
            let mut ready = self.fd.readable().await?;
            match ready.try_io(|fd| receive(fd.as_fd())) {
                Ok(received) => return received?.ok_or(io::ErrorKind::UnexpectedEof.into()),
                Err(_would_block) => {}
            }
        }
    }

    /// Sends a request, and hears events meanwhile: two that wait for each other would wait for ever.
    async fn send(&self, spawner: &Spawner, request: &Request, fds: &[OwnedFd]) -> io::Result<()> {
        let fds: Vec<BorrowedFd<'_>> = fds.iter().map(|fd| fd.as_fd()).collect();
        loop {
            tokio::select! {
                biased;
                ready = self.fd.writable() => match ready?.try_io(|fd| send(fd.as_fd(), request, &fds)) {
                    Ok(sent) => return sent,
                    Err(_would_block) => {}
                },
                received = self.receive() => {
                    let (event, fds) = received?;
                    spawner.hear(event, fds);
                }
            }
        }
    }
}

/// Connects, and starts a spawner first if nobody listens.
async fn open(socket: &Path, log: &Path) -> io::Result<AsyncFd<OwnedFd>> {
    if let Ok(fd) = attempt(socket) {
        return watch(fd);
    }
    let mut file = File::options();
    file.create(true).append(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
    let log = file.open(log)?;
    let mut child = tokio::process::Command::new(std::env::current_exe()?)
        .arg("spawner")
        .arg("--socket")
        .arg(socket)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .process_group(0)
        .spawn()?;
    let started = tokio::time::Instant::now();
    loop {
        match attempt(socket) {
            Ok(fd) => {
                // It outlives this manager; while it does not, it must not stay as a zombie.
                tokio::spawn(async move { child.wait().await });
                return watch(fd);
            }
            Err(e) if started.elapsed() > START => return Err(e),
            Err(_) => {}
        }
        if let Some(status) = child.try_wait()? {
            return Err(io::Error::other(format!("the spawner ended at once, {status}: see its log")));
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd is one open file as long as it lives.
    Ok(unsafe { AsyncFd::register(fd) }?)
}

fn attempt(socket: &Path) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let fd = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    connect(&fd, &SocketAddrUnix::new(socket)?)?;
    Ok(fd)
}

fn in_memory(bytes: &[u8]) -> io::Result<OwnedFd> {
    let mut file = File::from(memfd_create("core0", MemfdFlags::CLOEXEC)?);
    file.write_all(bytes)?;
    rustix::fs::seek(&file, rustix::fs::SeekFrom::Start(0))?;
    Ok(file.into())
}
