//! The manager's end of the spawner: starts it when there is none, asks it for processes, hears of their ends.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with, sockopt};
use rustix::process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, oneshot};

use super::protocol::{Event, Exit, Request, TAG_MAX, fits, receive, send};
use crate::process::{Process, watch};

/// Requests that wait to be sent; who asks for more waits.
const REQUESTS: usize = 1024;
/// How long a new spawner may take to listen.
const START: Duration = Duration::from_secs(10);
/// How often a spawner is asked whether it is well, and how long it may be silent before it is replaced.
const WATCH: Duration = Duration::from_secs(3);
const SILENCE: Duration = Duration::from_secs(12);
/// How long when it waits for the kernel: a program may come from a file system that takes its time to give it.
const PATIENCE: Duration = Duration::from_secs(120);

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
    /// What an earlier manager had kept of what it read: [`Handle::keep`].
    pub kept: Option<[OwnedFd; 3]>,
    /// Up to where an earlier manager had logged either.
    pub logged: [u64; 2],
    /// Whether its streams are a terminal.
    pub on_terminal: bool,
    /// Whether it had ended already when this manager took it over.
    pub had_ended: bool,
    exit: oneshot::Receiver<Exit>,
    spawner: Spawner,
}

impl Child {
    fn new(
        slot: u64,
        pid: i32,
        started_ms: u64,
        output: Option<[OwnedFd; 2]>,
        exit: oneshot::Receiver<Exit>,
        spawner: &Spawner,
    ) -> Self {
        let (logged, spawner) = ([0, 0], spawner.clone());
        Self {
            slot,
            pid,
            started_ms,
            output,
            kept: None,
            logged,
            on_terminal: false,
            had_ended: false,
            exit,
            spawner,
        }
    }

    /// Waits for its end; `None` when the spawner died, and the process with it.
    pub async fn wait(&mut self) -> Option<Exit> {
        (&mut self.exit).await.ok()
    }

    /// Lets programs start in a container.
    pub async fn go(&self) {
        // Without a spawner there is no container either.
        let _ = self.spawner.requests.send(Message::of(Request::Go { slot: self.slot })).await;
    }

    /// What reaches it while others wait for it.
    pub fn handle(&self) -> Handle {
        Handle { slot: self.slot, spawner: self.spawner.clone() }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let forget = Message::of(Request::Forget { slot: self.slot });
        // A spawner that never heard of it would keep its descriptors.
        if let Err(mpsc::error::TrySendError::Full(forget)) = self.spawner.requests.try_send(forget)
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let requests = self.spawner.requests.clone();
            runtime.spawn(async move { requests.send(forget).await });
        }
    }
}

/// Reaches one process.
#[derive(Clone, Debug)]
pub struct Handle {
    slot: u64,
    spawner: Spawner,
}

impl Handle {
    /// Sends a signal to it and to its group; one to a process that has ended does nothing.
    pub async fn signal(&self, signal: i32) {
        let request = Request::Signal { slot: self.slot, signal };
        // Without a spawner there is no process either: it dies with its parent.
        let _ = self.spawner.requests.send(Message::of(request)).await;
    }

    /// Has the spawner keep three descriptors, of what is read of its output; true when it is sure to have them, whatever
    /// becomes of this manager.
    pub async fn keep(&self, fds: Vec<OwnedFd>) -> bool {
        let (sent, is_sent) = oneshot::channel();
        let request = Request::Keep { slot: self.slot };
        let message = Message { request, fds, sent: Some(sent) };
        self.spawner.requests.send(message).await.is_ok() && is_sent.await.is_ok()
    }
}

/// Who waits for a process to be there, and for its end.
struct Pending {
    started: Option<(Started, oneshot::Receiver<Exit>)>,
    exited: oneshot::Sender<Exit>,
}

type Started = oneshot::Sender<Result<Child, SpawnError>>;

/// A request on its way.
struct Message {
    request: Request,
    fds: Vec<OwnedFd>,
    /// Told when it is in the socket.
    sent: Option<oneshot::Sender<()>>,
}

impl Message {
    fn of(request: Request) -> Self {
        Self { request, fds: Vec::new(), sent: None }
    }
}

type Waiting = Arc<parking_lot::Mutex<HashMap<u64, Pending>>>;

/// The process of a spawner.
struct Peer {
    pid: i32,
    pidfd: OwnedFd,
}

/// A handle to the spawner.
#[derive(Clone)]
pub struct Spawner {
    requests: mpsc::Sender<Message>,
    next_slot: Arc<AtomicU64>,
    waiting: Waiting,
    /// Who asked whether it is well.
    pings: Arc<parking_lot::Mutex<Vec<oneshot::Sender<()>>>>,
    /// The process behind the connection.
    process: Arc<parking_lot::Mutex<Option<Peer>>>,
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
        let spawner = Self::over(requests);
        let fd = open(socket, log).await?;
        let mut link = Link { place: Some((socket.into(), log.into())), fd };
        let held = link.meet(&spawner).await?;
        tokio::spawn(link.run(spawner.clone(), queue));
        tokio::spawn(spawner.clone().watch());
        Ok((spawner, held))
    }

    fn over(requests: mpsc::Sender<Message>) -> Self {
        Self {
            requests,
            next_slot: Arc::default(),
            waiting: Waiting::default(),
            pings: Arc::default(),
            process: Arc::default(),
        }
    }

    /// Replaces a spawner that hangs: it is killed, and what it started dies with it.
    async fn watch(self) {
        let mut silent = Duration::ZERO;
        while !self.requests.is_closed() {
            tokio::time::sleep(WATCH).await;
            if self.answers(SILENCE).await {
                silent = Duration::ZERO;
                continue;
            }
            silent += SILENCE;
            if self.requests.is_closed() || (self.waits() && silent < PATIENCE) {
                continue;
            }
            tracing::error!("the spawner does not answer for {silent:?}: it is killed");
            self.kill();
            // Its successor gets the time that it needs.
            tokio::time::sleep(START).await;
            silent = Duration::ZERO;
        }
    }

    /// Whether it waits for the kernel, as it does until a process that it starts is a program.
    fn waits(&self) -> bool {
        let Some(pid) = self.process.lock().as_ref().map(|peer| peer.pid) else { return false };
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('D'))
    }

    /// Whether it answers in time.
    pub async fn answers(&self, limit: Duration) -> bool {
        let (ping, pong) = oneshot::channel();
        {
            let mut pings = self.pings.lock();
            pings.retain(|ping| !ping.is_closed());
            pings.push(ping);
        }
        let answered = async {
            let asked = self.requests.send(Message::of(Request::Ping)).await.is_ok();
            asked && pong.await.is_ok()
        };
        tokio::time::timeout(limit, answered).await == Ok(true)
    }

    /// Kills it, and with it all that it started.
    pub fn kill(&self) {
        if let Some(peer) = &*self.process.lock()
            && let Err(e) = pidfd_send_signal(&peer.pidfd, Signal::KILL)
        {
            tracing::warn!("cannot kill the spawner: {e}");
        }
    }

    /// Speaks to the spawner inside of a container, over the socket that came with the container. Gives the processes that it
    /// kept.
    pub async fn inside(socket: OwnedFd) -> io::Result<(Self, Vec<(String, Child)>)> {
        let (requests, queue) = mpsc::channel(REQUESTS);
        let spawner = Self::over(requests);
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
        let slot = self.next_slot.fetch_add(1, Ordering::Relaxed);
        self.ask(slot, Request::Contain { slot, tag: tag.into() }, vec![memfd]).await
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
        let slot = self.next_slot.fetch_add(1, Ordering::Relaxed);
        let mut request = Request::Spawn { slot, tag: tag.into(), process: Some(process.clone()) };
        let mut fds = Vec::new();
        if !fits(&request) {
            let json = serde_json::to_vec(process).map_err(io::Error::from);
            let json = json.and_then(|json| in_memory(&json)).map_err(failed("describe the process"))?;
            fds.push(json);
            request = Request::Spawn { slot, tag: tag.into(), process: None };
        }
        if !process.stdin.is_empty() {
            fds.push(in_memory(&process.stdin).map_err(failed("hand over the standard input"))?);
        }
        self.ask(slot, request, fds).await
    }

    /// Sends a request that makes a child, and waits for it.
    async fn ask(&self, slot: u64, request: Request, fds: Vec<OwnedFd>) -> Result<Child, SpawnError> {
        let (started, told) = oneshot::channel();
        let (exited, exit) = oneshot::channel();
        self.waiting.lock().insert(slot, Pending { started: Some((started, exit)), exited });
        if self.requests.send(Message { request, fds, sent: None }).await.is_err() {
            self.waiting.lock().remove(&slot);
            return Err(SpawnError::Gone);
        }
        told.await.unwrap_or(Err(SpawnError::Gone))
    }

    /// Kills all that is left, and the spawner; returns when it is gone. One that hangs, perhaps on a file system whose
    /// server died, is killed after `limit`, and what it started dies with it.
    pub async fn finish(&self, limit: Duration) {
        let finished = async {
            let _ = self.requests.send(Message::of(Request::Finish)).await;
            self.requests.closed().await;
        };
        if tokio::time::timeout(limit, finished).await.is_err() {
            tracing::warn!("the spawner does not end: it is killed");
            self.kill();
        }
    }

    fn hear(&self, event: Event, fds: Vec<OwnedFd>) {
        match event {
            Event::Spawned { slot, pid, started_ms } => {
                let started = self.waiting.lock().get_mut(&slot).and_then(|pending| pending.started.take());
                let Some((started, exit)) = started else { return };
                let output = fds.try_into().ok();
                let child = Child::new(slot, pid, started_ms, output, exit, self);
                if let Err(Ok(child)) = started.send(Ok(child)) {
                    // Nobody waits for it any more.
                    let kill = Request::Signal { slot: child.slot, signal: libc::SIGKILL };
                    let _ = self.requests.try_send(Message::of(kill));
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
            Event::Pong => {
                for ping in self.pings.lock().drain(..) {
                    // Who asked may have given up.
                    let _ = ping.send(());
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
    /// Takes over what a spawner kept. One that hangs is killed, and another started.
    async fn meet(&mut self, spawner: &Spawner) -> io::Result<Vec<(String, Child)>> {
        *spawner.process.lock() = self.process()?;
        {
            let mut held = pin!(self.hear_held(spawner));
            let began = tokio::time::Instant::now();
            while began.elapsed() < START || (spawner.waits() && began.elapsed() < PATIENCE) {
                if let Ok(held) = tokio::time::timeout(START, &mut held).await {
                    return held;
                }
            }
        }
        tracing::error!("the spawner does not answer: it is killed, and all jobs and services with it");
        spawner.kill();
        spawner.waiting.lock().clear();
        tokio::time::timeout(START, self.gone()).await.map_err(io::Error::other)??;
        let Some((socket, log)) = &self.place else { return Err(io::ErrorKind::NotConnected.into()) };
        self.fd = open(socket, log).await?;
        *spawner.process.lock() = self.process()?;
        tokio::time::timeout(START, self.hear_held(spawner)).await.map_err(io::Error::other)?
    }

    async fn hear_held(&mut self, spawner: &Spawner) -> io::Result<Vec<(String, Child)>> {
        let mut held = Vec::new();
        loop {
            match self.receive().await? {
                (Event::Held { slot, tag, pid, started_ms, exit, kept }, fds) => {
                    let (sender, receiver) = oneshot::channel();
                    let mut fds = fds;
                    let rest = fds.split_off(fds.len().min(2));
                    let mut child = Child::new(slot, pid, started_ms, fds.try_into().ok(), receiver, spawner);
                    child.kept = kept.then(|| rest.try_into().ok()).flatten();
                    child.had_ended = exit.is_some();
                    match exit {
                        Some(exit) => drop(sender.send(exit)),
                        None => {
                            let pending = Pending { started: None, exited: sender };
                            spawner.waiting.lock().insert(slot, pending);
                        }
                    }
                    held.push((tag, child));
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
            spawner.pings.lock().clear();
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
            Some(peer) => watch(peer.pidfd)?.readable().await.map(drop),
            None => Ok(()),
        }
    }

    /// The process at the other end, unless it is gone.
    fn process(&self) -> io::Result<Option<Peer>> {
        let pid = sockopt::socket_peercred(&self.fd)?.pid;
        match pidfd_open(pid, PidfdFlags::NONBLOCK) {
            Ok(pidfd) => Ok(Some(Peer { pid: pid.as_raw_pid(), pidfd })),
            Err(rustix::io::Errno::SRCH) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    async fn reopen(&mut self, spawner: &Spawner) -> io::Result<()> {
        let Some((socket, log)) = &self.place else { return Err(io::ErrorKind::NotConnected.into()) };
        self.fd = open(socket, log).await?;
        self.meet(spawner).await.map(drop)
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
                    let Some(Message { request, fds, sent }) = message else { return true };
                    if matches!(request, Request::Spawn { slot, .. } | Request::Contain { slot, .. } if !spawner.waiting.lock().contains_key(&slot)) {
                        // Its sender was told that the spawner before this one is gone.
                        continue;
                    }
                    finishing = matches!(request, Request::Finish);
                    if self.send(spawner, &request, &fds).await.is_err() {
                        return finishing;
                    }
                    if let Some(sent) = sent {
                        // Who asked may not wait any more.
                        let _ = sent.send(());
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
