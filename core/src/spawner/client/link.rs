//! The connection to a spawner: what it kept is taken over, requests go out, events come in, and one that died is replaced.

use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::Stdio;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with, sockopt};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, oneshot};

use super::{Child, Held, Message, PATIENCE, Peer, Pending, START, Spawner};
use crate::process::watch;
use crate::spawner::protocol::{Event, Request, receive, send};

/// See the module's text.
pub struct Link {
    /// Where another one can be started, with its log; none inside of a container.
    place: Option<(PathBuf, PathBuf)>,
    fd: AsyncFd<OwnedFd>,
}

impl Link {
    /// To the spawner of a socket, which is started first if nobody listens.
    pub async fn open(socket: &Path, log: &Path) -> io::Result<Self> {
        let fd = open(socket, log).await?;
        Ok(Self { place: Some((socket.into(), log.into())), fd })
    }

    /// To the spawner inside of a container.
    pub fn over(socket: OwnedFd) -> io::Result<Self> {
        Ok(Self { place: None, fd: watch(socket)? })
    }

    /// Takes over what a spawner kept. One that hangs is killed, and another started.
    pub async fn meet(&mut self, spawner: &Spawner) -> io::Result<Held> {
        *spawner.process.lock() = self.process()?;
        match self.hear_patiently(spawner, PATIENCE).await {
            Err(e) if e.kind() == io::ErrorKind::TimedOut => {}
            heard => return heard,
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

    /// The same of one that may wait for the kernel meanwhile.
    pub async fn hear_patiently(&self, spawner: &Spawner, patience: Duration) -> io::Result<Held> {
        let mut held = pin!(self.hear_held(spawner));
        let began = tokio::time::Instant::now();
        while began.elapsed() < START || (spawner.waits() && began.elapsed() < patience) {
            if let Ok(held) = tokio::time::timeout(START, &mut held).await {
                return held;
            }
        }
        Err(io::ErrorKind::TimedOut.into())
    }

    /// Says that a manager is there, and hears what the spawner kept.
    ///
    /// A socket into a container goes from one manager to the next, with whatever the last one did not read: perhaps half of
    /// what it was told at its own hello. Only what answers this one counts.
    async fn hear_held(&self, spawner: &Spawner) -> io::Result<Held> {
        let own = RandomState::new().hash_one(std::process::id());
        self.send(spawner, &Request::Hello { hello: own }, &[]).await?;
        let mut held = Vec::new();
        loop {
            match self.receive().await? {
                (Event::Held { hello, .. } | Event::Ready { hello, .. }, _) if hello != own => {}
                (Event::Held { slot, tag, pid, started_ms, exit, kept, .. }, fds) => {
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
                (Event::Ready { next_slot, .. }, _) => {
                    spawner.next_slot.fetch_max(next_slot, Ordering::Relaxed);
                    return Ok(held);
                }
                (event, fds) => spawner.hear(event, fds),
            }
        }
    }

    /// Carries requests and events until the manager ends. A spawner that died is replaced; its processes died with it.
    pub async fn run(mut self, spawner: Spawner, mut queue: mpsc::Receiver<Message>) {
        loop {
            let finished = self.carry(&spawner, &mut queue).await;
            if self.place.is_none() {
                // First: whoever asks from here on is told so, and waits for nothing.
                queue.close();
            }
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
                // Who has asked meanwhile is told, too.
                queue.close();
                spawner.waiting.lock().clear();
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

    fn process(&self) -> io::Result<Option<Peer>> {
        peer(self.fd.get_ref())
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
                    if request.starts().is_some_and(|slot| !spawner.waiting.lock().contains_key(&slot)) {
                        // Its sender waits no more, or was told that the spawner before this one is gone.
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

/// Kills the spawner of a socket, if there is one, and with it all that it started.
pub fn kill_at(socket: &Path) -> io::Result<()> {
    // Who hangs still listens.
    let Ok(fd) = attempt(socket) else { return Ok(()) };
    match peer(&fd)? {
        Some(peer) => Ok(pidfd_send_signal(&peer.pidfd, Signal::KILL)?),
        None => Ok(()),
    }
}

/// The process at the other end, unless it is gone.
fn peer(fd: &OwnedFd) -> io::Result<Option<Peer>> {
    process(sockopt::socket_peercred(fd)?.pid.as_raw_pid())
}

/// The process of a pid, unless it is gone.
pub fn process(pid: i32) -> io::Result<Option<Peer>> {
    let known = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidInput)?;
    match pidfd_open(known, PidfdFlags::NONBLOCK) {
        Ok(pidfd) => Ok(Some(Peer { pid, pidfd })),
        Err(rustix::io::Errno::SRCH) => Ok(None),
        Err(e) => Err(e.into()),
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
