//! The process that owns a cache and serves its mounts.
//!
//! It lives as long as it has a mount or a client, and no longer. It decides to end on the one thread that also
//! accepts clients: a client is either accepted before that, and keeps it alive, or finds its connection closed
//! without an answer and starts the next daemon, which waits for the lock on the cache.

use std::io::{self, BufReader, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use g8_cache::{OpenError, SourceStats};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::SOCKET;
use super::blocks::{self, Blocks};
use super::caller::Caller;
use super::carrier::Carrier;
use super::protocol::{Kept, MountRequest, Refusal, Reply, Request, receive_request, send, send_along};
use crate::engine::{Engine, EngineConfig, EngineError, Last, MountError};

/// Clients served at the same time; further ones wait in the socket's queue.
const MAX_CLIENTS: usize = 64;
/// How long a new daemon waits for its first client, and for an ending one to give up the cache.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a client may take to say what it wants.
const REQUEST_TIME: Duration = Duration::from_secs(10);
/// Pause when a client that is there cannot be accepted: poll(2) would name it again at once.
const BREATH: Duration = Duration::from_millis(100);

/// Why a daemon does not run.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The engine does not start.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// Its socket cannot be made.
    #[error("{0}")]
    Socket(PathBuf, #[source] io::Error),
}

/// Runs the daemon of a cache until it is no longer needed or told to stop. `ready` is called once clients can
/// connect, to this daemon or to another one that was faster.
pub fn serve(config: EngineConfig, ready: impl FnOnce()) -> Result<(), ServeError> {
    tune_malloc();
    let folder = config.cache_dir.clone();
    let Some(engine) = start_engine(config)? else {
        ready();
        return Ok(());
    };
    let engine = Arc::new(engine);
    let socket_error = |e| ServeError::Socket(folder.join(SOCKET), e);
    let listener = listen(&folder, SOCKET).map_err(socket_error)?;
    let server = Server::new(engine.clone(), listener).map_err(socket_error)?;
    ready();
    let served = server.run().map_err(socket_error);
    // Nobody may find a socket once nobody answers on it; the lock on the cache is still ours here.
    for name in [SOCKET, blocks::SOCKET] {
        match std::fs::remove_file(folder.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%error, "the socket {name} stays behind");
            }
            Ok(()) | Err(_) => {}
        }
    }
    // Nor wait on it for as long as the disk takes what the cache still has in memory.
    drop(server);
    engine.shutdown();
    served
}

/// Has glibc keep less than it would (mallopt(3)). Blocks and frames are allocated on one thread and freed on another: with
/// a heap for each, a daemon held half as much again as its budget, and two heaps are no slower. What is larger than a
/// few blocks comes from the kernel and goes back to it; left alone, malloc learns to keep up to 32 MiB of it. The end of
/// a heap is not given back at every free of a frame, which its next use would fault in again.
fn tune_malloc() {
    #[cfg(target_env = "gnu")]
    for (parameter, value) in
        [(libc::M_ARENA_MAX, 2), (libc::M_MMAP_THRESHOLD, 4 << 20), (libc::M_TRIM_THRESHOLD, 16 << 20)]
    {
        // SAFETY: it sets a number that malloc reads when it next needs memory.
        if unsafe { libc::mallopt(parameter, value) } == 0 {
            tracing::warn!(parameter, "malloc does not take a parameter");
        }
    }
}

/// Judging an image takes many times the memory that it is kept in; malloc would hold on to it (malloc_trim(3)).
fn give_memory_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it only gives free pages back to the system.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Opens the cache, waiting for a daemon that is just ending. `None` when another one lives.
fn start_engine(config: EngineConfig) -> Result<Option<Engine>, ServeError> {
    let end = Instant::now() + PATIENCE;
    loop {
        match Engine::start(config.clone()) {
            Err(EngineError::Cache(OpenError::Busy { .. })) if Instant::now() < end => {
                if super::client::connect(&config.cache_dir).is_ok() {
                    return Ok(None);
                }
                thread::sleep(Duration::from_millis(10));
            }
            other => return Ok(Some(other?)),
        }
    }
}

/// Makes a socket in the cache folder, which is ours alone.
pub(super) fn listen(folder: &Path, name: &str) -> io::Result<UnixListener> {
    let path = folder.join(name);
    match std::fs::remove_file(&path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let (short, _folder) = super::client::short_path(folder, name)?;
    let listener = UnixListener::bind(short)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// What the accepting thread and the others share.
struct Shared {
    clients: AtomicUsize,
    blocks: Blocks,
    stop: AtomicBool,
    waker: UnixStream,
}

impl Shared {
    /// Makes the accepting thread look again.
    fn wake(&self) {
        // A full pipe means that it is awake already.
        let _ = (&self.waker).write(&[0]);
    }
}

struct Server {
    engine: Arc<Engine>,
    listener: UnixListener,
    woken: UnixStream,
    shared: Arc<Shared>,
}

impl Server {
    fn new(engine: Arc<Engine>, listener: UnixListener) -> io::Result<Self> {
        let (woken, waker) = UnixStream::pair()?;
        woken.set_nonblocking(true)?;
        waker.set_nonblocking(true)?;
        let shared = Arc::new(Shared {
            clients: AtomicUsize::new(0),
            blocks: Blocks::default(),
            stop: AtomicBool::new(false),
            waker,
        });
        let on_end = shared.clone();
        engine.on_mount_end(move || on_end.wake());
        let mut signals = signal_hook::iterator::Signals::new([SIGTERM, SIGINT, SIGHUP])?;
        let on_signal = shared.clone();
        thread::Builder::new().name("g8-signals".into()).spawn(move || {
            for signal in signals.forever() {
                tracing::info!(signal, "told to stop");
                on_signal.stop.store(true, Ordering::Release);
                on_signal.wake();
            }
        })?;
        Ok(Server { engine, listener, woken, shared })
    }

    /// Accepts clients until there is neither client nor mount nor anybody who wants blocks, or a signal came.
    fn run(&self) -> io::Result<()> {
        let first_client_by = Instant::now() + PATIENCE;
        let mut had_client = false;
        loop {
            if self.shared.stop.load(Ordering::Acquire) {
                return Ok(());
            }
            let clients = self.shared.clients.load(Ordering::Acquire);
            let idle = clients == 0 && self.shared.blocks.is_idle() && self.engine.is_idle();
            if idle && (had_client || Instant::now() >= first_client_by) {
                return Ok(());
            }
            self.wait(clients < MAX_CLIENTS, had_client)?;
            while self.shared.clients.load(Ordering::Acquire) < MAX_CLIENTS {
                match self.listener.accept() {
                    Ok((stream, _)) => {
                        had_client = true;
                        self.take(stream);
                    }
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                    Err(e) => {
                        // Out of descriptors, say: those who wait are served when some are free again.
                        tracing::warn!(error = %e, "accepting a client");
                        thread::sleep(BREATH);
                        break;
                    }
                }
            }
        }
    }

    fn wait(&self, accepting: bool, had_client: bool) -> io::Result<()> {
        let mut fds = [
            PollFd::new(&self.woken, PollFlags::IN),
            PollFd::new(&self.listener, if accepting { PollFlags::IN } else { PollFlags::empty() }),
        ];
        let limit = Timespec { tv_sec: 1, tv_nsec: 0 };
        match poll(&mut fds, if had_client { None } else { Some(&limit) }) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
        let mut drained = [0; 64];
        while matches!((&self.woken).read(&mut drained), Ok(n) if n > 0) {}
        Ok(())
    }

    fn take(&self, stream: UnixStream) {
        let (engine, shared) = (self.engine.clone(), self.shared.clone());
        shared.clients.fetch_add(1, Ordering::AcqRel);
        let serve = move || {
            if let Err(error) = answer(&engine, stream, Leaving(shared)) {
                tracing::warn!(%error, "a client was not answered");
            }
        };
        if let Err(error) = thread::Builder::new().name("g8-client".into()).spawn(serve) {
            // The closure is dropped with the error, and `Leaving` was never made.
            self.shared.clients.fetch_sub(1, Ordering::AcqRel);
            tracing::error!(%error, "no thread for a client");
        }
    }
}

/// Counts a client out, also when its thread panics.
struct Leaving(Arc<Shared>);

impl Drop for Leaving {
    fn drop(&mut self) {
        self.0.clients.fetch_sub(1, Ordering::AcqRel);
        self.0.wake();
    }
}

fn answer(engine: &Engine, stream: UnixStream, client: Leaving) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(REQUEST_TIME))?;
    let caller = Caller::at(&stream)?;
    let ours = rustix::process::geteuid().as_raw();
    if caller.uid != ours && caller.uid != 0 {
        let message = format!("this daemon serves user {ours} only");
        return send(&stream, &Reply::Refused(Refusal { message }));
    }
    let mut carrier = Carrier::new(&stream);
    let Some(request) = receive_request(BufReader::new(&mut carrier))? else { return Ok(()) };
    let brought = carrier.brought;
    tracing::debug!(?request, pid = caller.pid, "request");
    let reply = match request {
        Request::Mount(request) => return mount(engine, &stream, &request, caller, client),
        Request::Keep { mountpoint } => return keep(engine, &stream, &mountpoint),
        Request::Resume(request) => resume(engine, &request, caller, brought),
        Request::Umount { mountpoint, lazy } => match engine.umount(&mountpoint, lazy) {
            Ok(()) => Reply::Done,
            Err(e) => Reply::Refused(Refusal::new(&e)),
        },
        Request::Recorded { mountpoint } => match engine.recorded(&mountpoint) {
            Ok(blocks) => Reply::Recorded(blocks),
            Err(e) => Reply::Refused(Refusal::new(&e)),
        },
        Request::Config { mountpoint } => match engine.config(&mountpoint) {
            Ok(config) => Reply::Config(config),
            Err(e) => Reply::Refused(Refusal::new(&e)),
        },
        Request::SourceList { mountpoint } => sources(engine.sources(&mountpoint)),
        Request::SourceAdd { mountpoint, source, deadline_ms } => match caller.shares_mounts() {
            Ok(()) => {
                let limit = Duration::from_millis(deadline_ms);
                sources(engine.add_source(&mountpoint, &source, limit))
            }
            Err(refusal) => Reply::Refused(refusal),
        },
        Request::SourceRemove { mountpoint, source, force } => {
            let last = if force { Last::MayGo } else { Last::Stays };
            sources(engine.remove_source(&mountpoint, &source, last))
        }
        Request::Mounts => Reply::Mounts(engine.mounts()),
        Request::CacheStats => Reply::Cache(Box::new(engine.cache().stats())),
        Request::CacheGc { budget } => {
            if let Some(bytes) = budget {
                engine.cache().set_disk_budget(bytes);
            }
            engine.cache().gc();
            Reply::Cache(Box::new(engine.cache().stats()))
        }
        Request::CacheClear => {
            engine.cache().clear();
            Reply::Cache(Box::new(engine.cache().stats()))
        }
        Request::Blocks => return give_blocks(engine, &stream, client),
    };
    send(&stream, &reply)
}

/// Gives what the cache holds for as long as the client stays.
fn give_blocks(engine: &Engine, stream: &UnixStream, client: Leaving) -> io::Result<()> {
    let shared = Arc::clone(&client.0);
    let holder = match shared.blocks.hold(engine) {
        Ok(holder) => holder,
        Err(refusal) => return send(stream, &Reply::Refused(refusal)),
    };
    // From here on the holder keeps the daemon alive, and takes no place of who asks.
    drop(client);
    let stayed = send(stream, &Reply::Done)
        .and_then(|()| stream.set_read_timeout(None))
        .and_then(|()| io::copy(&mut { stream }, &mut io::sink()));
    tracing::debug!(?stayed, "who wanted blocks has gone");
    drop(holder);
    shared.wake();
    Ok(())
}

fn keep(engine: &Engine, stream: &UnixStream, mountpoint: &Path) -> io::Result<()> {
    match engine.keep(mountpoint) {
        Ok((status, spec, device)) => {
            let kept = Kept { status, request: spec.into() };
            send_along(stream, &Reply::Kept(Box::new(kept)), Some(device.as_fd()))
        }
        Err(e) => send(stream, &Reply::Refused(Refusal::new(&e))),
    }
}

fn resume(engine: &Engine, request: &MountRequest, caller: Caller, device: Option<OwnedFd>) -> Reply {
    if let Err(refusal) = caller.shares_mounts() {
        return Reply::Refused(refusal);
    }
    let Some(device) = device else {
        return Reply::Refused(Refusal { message: "no descriptor came with the request".into() });
    };
    match engine.resume(&request.spec(), device) {
        Ok(status) => Reply::Mounted(Box::new(status)),
        Err(e) => Reply::Refused(Refusal::new(&e)),
    }
}

fn sources(outcome: Result<Vec<SourceStats>, MountError>) -> Reply {
    match outcome {
        Ok(list) => Reply::Sources(list),
        Err(error) => Reply::Refused(Refusal::new(&error)),
    }
}

fn mount(
    engine: &Engine,
    stream: &UnixStream,
    request: &MountRequest,
    caller: Caller,
    client: Leaving,
) -> io::Result<()> {
    if let Err(refusal) = caller.shares_mounts() {
        return send(stream, &Reply::Refused(refusal));
    }
    let status = match engine.mount(&request.spec()) {
        Ok(status) => status,
        Err(e) => return send(stream, &Reply::Refused(Refusal::new(&e))),
    };
    let mountpoint = status.mountpoint.clone();
    let sent = send(stream, &Reply::Mounted(Box::new(status)));
    give_memory_back();
    if sent.is_ok() && !request.hold {
        return sent;
    }
    // From here on the mount keeps the daemon alive; who only holds one must not take the place of who asks.
    drop(client);
    // The mount belongs to the client: it ends when the client's end of the connection does, however that happens.
    stream.set_read_timeout(None)?;
    // A client that is gone before it heard of its mount holds nothing.
    let left = sent.and_then(|()| io::copy(&mut { stream }, &mut io::sink()));
    tracing::debug!(fd = stream.as_raw_fd(), ?left, "the holder of a mount has gone");
    if engine.umount(&mountpoint, false).is_err()
        && let Err(error) = engine.umount(&mountpoint, true)
    {
        tracing::warn!(mountpoint = %mountpoint.display(), %error, "a held mount stays");
    }
    Ok(())
}
