//! The manager's end of the spawner: starts it when there is none, asks it for processes, hears of their ends.
//! [`link`] is the connection that carries it.

mod link;

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Signal, pidfd_send_signal};
use tokio::sync::{mpsc, oneshot, watch};

use super::protocol::{Event, Exit, Request, Start, TAG_MAX, fits};
use crate::process::Process;
use crate::sys::text;
use link::Link;
pub use link::kill_at;

/// Requests that wait to be sent; who asks for more waits.
const REQUESTS: usize = 1024;
/// How long a new spawner may take to listen.
const START: Duration = Duration::from_secs(10);
/// How often a spawner is asked whether it is well, and how long it may be silent before it is replaced.
const WATCH: Duration = Duration::from_secs(3);
const SILENCE: Duration = Duration::from_secs(12);
/// How long when it waits for the kernel: a program may come from a file system that takes its time to give it.
const PATIENCE: Duration = Duration::from_secs(120);
/// The same of one in a container, which nobody else waits for.
const PATIENCE_INSIDE: Duration = Duration::from_secs(600);

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
        // A spawner that never heard of it would keep its descriptors.
        self.spawner.tell(Request::Forget { slot: self.slot });
    }
}

/// What is being started, and ends when nobody waits for that any more. What is not on its way yet never is.
struct Unwanted<'a>(Option<(&'a Spawner, u64)>);

impl Drop for Unwanted<'_> {
    fn drop(&mut self) {
        if let Some((spawner, slot)) = self.0 {
            spawner.waiting.lock().remove(&slot);
            spawner.tell(Request::Signal { slot, signal: libc::SIGKILL });
            spawner.tell(Request::Forget { slot });
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

    /// Kills it, for who cannot wait until the spawner is told.
    pub fn kill_soon(&self) {
        self.spawner.tell(Request::Signal { slot: self.slot, signal: libc::SIGKILL });
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

/// The processes that a spawner kept, by their tags.
pub type Held = Vec<(String, Child)>;

/// A handle to the spawner.
#[derive(Clone)]
pub struct Spawner {
    requests: mpsc::Sender<Message>,
    next_slot: Arc<AtomicU64>,
    waiting: Waiting,
    /// Who asked whether it is well. The answer says how many orphans it has reaped.
    pings: Arc<parking_lot::Mutex<Vec<oneshot::Sender<u64>>>>,
    /// The process behind the connection.
    process: Arc<parking_lot::Mutex<Option<Peer>>>,
    /// Whether it has told what it kept: until then nobody knows which numbers are taken.
    met: Arc<watch::Sender<bool>>,
}

impl std::fmt::Debug for Spawner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Spawner")
    }
}

impl Spawner {
    /// Connects to the spawner of a socket, and starts one first if there is none. Gives the processes that it kept, by
    /// their tags.
    pub async fn connect(socket: &Path, log: &Path) -> io::Result<(Self, Held)> {
        let (requests, queue) = mpsc::channel(REQUESTS);
        let spawner = Self::over(requests);
        let mut link = Link::open(socket, log).await?;
        let held = link.meet(&spawner).await?;
        spawner.met.send_replace(true);
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
            met: Arc::default(),
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
        self.orphans(limit).await.is_some()
    }

    /// How many processes it has reaped that its children had left behind, if it answers in time.
    pub async fn orphans(&self, limit: Duration) -> Option<u64> {
        let (ping, pong) = oneshot::channel();
        {
            let mut pings = self.pings.lock();
            pings.retain(|ping| !ping.is_closed());
            pings.push(ping);
        }
        let answered = async {
            self.requests.send(Message::of(Request::Ping)).await.ok()?;
            pong.await.ok()
        };
        tokio::time::timeout(limit, answered).await.ok().flatten()
    }

    /// What no other spawner has, before or after it: its pid and when it began, in ticks since the boot (proc_pid_stat(5)).
    pub fn life(&self) -> Option<String> {
        let pid = self.process.lock().as_ref()?.pid;
        let stat = text::read(format!("/proc/{pid}/stat")).ok()?;
        let (_, fields) = stat.rsplit_once(") ")?;
        Some(format!("{pid} {}", fields.split_ascii_whitespace().nth(19)?))
    }

    /// Kills it, and with it all that it started.
    pub fn kill(&self) {
        if let Some(peer) = &*self.process.lock()
            && let Err(e) = pidfd_send_signal(&peer.pidfd, Signal::KILL)
        {
            tracing::warn!("cannot kill the spawner: {e}");
        }
    }

    /// Speaks to the spawner inside of a container, over the socket that came with the container; `pid` is what it is out here.
    /// It may take its time to tell what it kept: a program that it starts may come from a source that stalls. Until then
    /// whoever asks it for something waits.
    pub fn inside(socket: OwnedFd, pid: i32) -> io::Result<(Self, oneshot::Receiver<io::Result<Held>>)> {
        let (requests, queue) = mpsc::channel(REQUESTS);
        let spawner = Self::over(requests);
        *spawner.process.lock() = link::process(pid)?;
        let link = Link::over(socket)?;
        let (told, held) = oneshot::channel();
        let inside = spawner.clone();
        tokio::spawn(async move {
            let heard = link.hear_patiently(&inside, PATIENCE_INSIDE).await;
            let is_heard = heard.is_ok();
            // Who does not want to know lets go of them.
            let _ = told.send(heard);
            if !is_heard {
                drop(queue);
                inside.waiting.lock().clear();
                inside.met.send_replace(true);
                return;
            }
            inside.met.send_replace(true);
            link.run(inside, queue).await;
        });
        Ok((spawner, held))
    }

    /// A number for what it is asked to start.
    async fn slot(&self) -> u64 {
        // The sender is here.
        let _ = self.met.subscribe().wait_for(|met| *met).await;
        self.next_slot.fetch_add(1, Ordering::Relaxed)
    }

    /// Builds a container; it is built when this returns, and waits for [`Child::go`].
    pub async fn contain(
        &self,
        spec: &g8_container::Spec,
        tag: &str,
        start: Start,
    ) -> Result<Child, SpawnError> {
        let json = serde_json::to_vec(spec).map_err(io::Error::from);
        let memfd = json
            .and_then(|json| in_memory(&json))
            .map_err(|source| SpawnError::Failed { step: "describe the container".into(), source })?;
        let slot = self.slot().await;
        self.ask(slot, Request::Contain { slot, tag: tag.into(), start }, vec![memfd]).await
    }

    /// Has a container carry out an errand, in JSON, with the file that it works on.
    pub async fn errand(&self, json: &[u8], file: Option<OwnedFd>, tag: &str) -> Result<Child, SpawnError> {
        let memfd = in_memory(json)
            .map_err(|source| SpawnError::Failed { step: "describe the errand".into(), source })?;
        let slot = self.slot().await;
        let fds = std::iter::once(memfd).chain(file).collect();
        self.ask(slot, Request::Errand { slot, tag: tag.into() }, fds).await
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
        let slot = self.slot().await;
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

    /// Sends a request, also when there is no room for it at once.
    fn tell(&self, request: Request) {
        if let Err(mpsc::error::TrySendError::Full(request)) = self.requests.try_send(Message::of(request))
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let requests = self.requests.clone();
            runtime.spawn(async move { requests.send(request).await });
        }
    }

    /// Sends a request that makes a child, and waits for it. Who stops waiting wants none.
    async fn ask(&self, slot: u64, request: Request, fds: Vec<OwnedFd>) -> Result<Child, SpawnError> {
        let (started, told) = oneshot::channel();
        let (exited, exit) = oneshot::channel();
        self.waiting.lock().insert(slot, Pending { started: Some((started, exit)), exited });
        let mut unwanted = Unwanted(Some((self, slot)));
        let child = match self.requests.send(Message { request, fds, sent: None }).await {
            Ok(()) => told.await.unwrap_or(Err(SpawnError::Gone)),
            Err(_) => {
                self.waiting.lock().remove(&slot);
                Err(SpawnError::Gone)
            }
        };
        unwanted.0 = None;
        child
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
                    child.handle().kill_soon();
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
            Event::Pong { orphans } => {
                for ping in self.pings.lock().drain(..) {
                    // Who asked may have given up.
                    let _ = ping.send(orphans);
                }
            }
            Event::Cleared { tag, too_many } => {
                tracing::warn!("what {tag} had left behind is killed: {too_many}");
            }
            Event::Held { .. } | Event::Ready { .. } => {}
        }
    }
}

fn in_memory(bytes: &[u8]) -> io::Result<OwnedFd> {
    let mut file = File::from(memfd_create("core0", MemfdFlags::CLOEXEC)?);
    file.write_all(bytes)?;
    rustix::fs::seek(&file, rustix::fs::SeekFrom::Start(0))?;
    Ok(file.into())
}
