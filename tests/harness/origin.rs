//! An HTTP server over a `dir:` store that goes wrong as it is told: the network and the strangers in it.
//!
//! It speaks just enough HTTP/1.1 to be a trustless gateway of single blocks and whole CARs, and a server of plain files with ranges, one
//! thread a connection. What the network is like ([`Link`]) and what goes wrong ([`Fault`]) can change at any time, also
//! whether anybody listens at all. It counts, and keeps a log of what it was asked.

mod answer;
mod dag;
mod found;
mod link;

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub use link::Link;
use link::Pace;

use crate::wait;

/// The identity CID of nothing, by which clients try gateways out. It is answered and not logged.
const PROBE: &str = "bafkqaaa";
/// The query by which a CAR is asked for.
const CAR: &str = "format=car";
/// How long to wait for a port that was ours before.
const PORT_LIMIT: Duration = Duration::from_secs(60);

/// What goes wrong with an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Another status than 200.
    Status(u16),
    /// 429 with `Retry-After`, in seconds.
    Busy(u64),
    /// The connection is closed without an answer.
    Reset,
    /// Nothing comes, ever.
    Stall,
    /// Half of the body comes, then nothing.
    StallMidway,
    /// Half of the body comes, then the end, although the head announced more.
    Truncate,
    /// Half of the body comes, and nobody said how much it would be.
    Short,
    /// One bit is the other way round.
    FlipBit,
    /// Bytes without end.
    Endless,
    /// A web page with status 200, as login pages of hotels and parked domains have it.
    Html,
    /// A redirect to itself.
    RedirectLoop,
}

impl Fault {
    /// Whether it begins behind the head of an answer.
    fn is_of_the_body(self) -> bool {
        use Fault::{Endless, FlipBit, Html, Short, StallMidway, Truncate};
        matches!(self, StallMidway | Truncate | Html | Short | FlipBit | Endless)
    }
}

/// One of each kind.
pub const FAULTS: [Fault; 13] = [
    Fault::Status(500),
    Fault::Status(401),
    Fault::Status(404),
    Fault::Busy(1),
    Fault::Reset,
    Fault::Stall,
    Fault::StallMidway,
    Fault::Truncate,
    Fault::Html,
    Fault::RedirectLoop,
    Fault::Short,
    Fault::FlipBit,
    Fault::Endless,
];

/// A request that came.
#[derive(Debug, Clone)]
pub struct Asked {
    /// The CID, or the whole target when there is none.
    pub cid: String,
    /// Whether all below it was asked for too.
    pub is_car: bool,
    /// Its head.
    pub head: String,
    /// When.
    pub at: Instant,
    /// What went wrong.
    pub fault: Option<Fault>,
}

/// What has gone over the link.
#[derive(Debug, Clone, Copy, Default)]
pub struct Traffic {
    /// Connections that were accepted.
    pub connections: u64,
    /// Requests that came.
    pub requests: u64,
    /// Bytes that were sent, heads included.
    pub bytes: u64,
}

type Plan = Box<dyn Fn(&str) -> Option<Fault> + Send>;

struct Shared {
    store: PathBuf,
    /// Folder of the plain files.
    files: Mutex<Option<PathBuf>>,
    pace: Pace,
    plan: Mutex<Plan>,
    log: Mutex<Vec<Asked>>,
    /// Those that are open, by the number of their coming.
    connections: Mutex<HashMap<u64, TcpStream>>,
    accepted: AtomicU64,
    requests: AtomicU64,
    is_down: AtomicBool,
}

/// The server. Dropping it ends it.
pub struct Origin {
    address: SocketAddr,
    shared: Arc<Shared>,
    listener: Mutex<Option<(TcpListener, JoinHandle<()>)>>,
}

impl Origin {
    /// A healthy server over the objects in `store`.
    pub fn over(store: &Path) -> Self {
        Self::at(Ipv4Addr::LOCALHOST.into(), store)
    }

    /// The same at an address of the network of the calling thread.
    pub fn at(ip: IpAddr, store: &Path) -> Self {
        let shared = Arc::new(Shared {
            store: store.to_owned(),
            files: Mutex::default(),
            pace: Pace::new(),
            plan: Mutex::new(Box::new(|_| None)),
            log: Mutex::default(),
            connections: Mutex::default(),
            accepted: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            is_down: AtomicBool::new(false),
        });
        let mut origin = Self { address: (ip, 0).into(), shared, listener: Mutex::new(None) };
        origin.address = origin.listen();
        origin
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// As `--from` names it.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The same with credentials in it.
    pub fn url_with(&self, credentials: &str) -> String {
        format!("http://{credentials}@{}", self.address)
    }

    /// It gives the files of this folder too, whole or in ranges: each by its name at the end of any path, as `NAME` or, in
    /// the way of registries, `sha256:NAME`.
    pub fn gives_files_of(&self, folder: &Path) {
        *lock(&self.shared.files) = Some(folder.to_owned());
    }

    /// Changes the way to it.
    pub fn link(&self, link: Link) {
        self.shared.pace.set(link);
    }

    /// What has gone over the link since it was made.
    pub fn traffic(&self) -> Traffic {
        Traffic {
            connections: self.shared.accepted.load(SeqCst),
            requests: self.shared.requests.load(SeqCst),
            bytes: self.shared.pace.bytes(),
        }
    }

    /// Every answer goes wrong like this from now on.
    pub fn fails(&self, fault: Fault) {
        self.fails_where(move |_| Some(fault));
    }

    /// Answers go wrong as `plan` says for the CID asked for, which has `?format=car` behind it when all below it is.
    pub fn fails_where(&self, plan: impl Fn(&str) -> Option<Fault> + Send + 'static) {
        *lock(&self.shared.plan) = Box::new(plan);
    }

    /// Nothing goes wrong any more with requests that come now.
    pub fn heal(&self) {
        self.fails_where(|_| None);
    }

    /// Nobody listens, and every connection is cut.
    pub fn down(&self) {
        if self.shared.is_down.swap(true, SeqCst) {
            return;
        }
        if let Some((socket, listener)) = lock(&self.listener).take() {
            // It wakes the one that waits for a connection, from any network.
            rustix::net::shutdown(&socket, rustix::net::Shutdown::Both).expect("it listens");
            listener.join().expect("the listener ends when told");
        }
        for (_, stream) in lock(&self.shared.connections).drain() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// It listens again where it did before.
    pub fn up(&self) {
        if self.shared.is_down.swap(false, SeqCst) {
            self.listen();
        }
    }

    /// What was asked so far.
    pub fn asked(&self) -> Vec<Asked> {
        lock(&self.shared.log).clone()
    }

    /// Forgets what was asked.
    pub fn forget(&self) {
        lock(&self.shared.log).clear();
    }

    fn listen(&self) -> SocketAddr {
        let mut bound = None;
        // Meanwhile a connection of somebody may have been given our port.
        wait::until(&format!("{} is free", self.address), PORT_LIMIT, || {
            bound = TcpListener::bind(self.address).ok();
            bound.is_some()
        });
        let listener = bound.expect("just waited for");
        let address = listener.local_addr().expect("it is bound");
        let socket = listener.try_clone().expect("a second descriptor of an open socket");
        let shared = Arc::clone(&self.shared);
        let accepting = std::thread::spawn(move || accept(&shared, &listener));
        *lock(&self.listener) = Some((socket, accepting));
        address
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.down();
    }
}

fn accept(shared: &Arc<Shared>, listener: &TcpListener) {
    for stream in listener.incoming() {
        if shared.is_down.load(SeqCst) {
            return;
        }
        let Ok(stream) = stream else { continue };
        let Ok(kept) = stream.try_clone() else { continue };
        let number = shared.accepted.fetch_add(1, SeqCst);
        lock(&shared.connections).insert(number, kept);
        let shared = Arc::clone(shared);
        std::thread::spawn(move || {
            // A client that goes away is its own business.
            let _ = serve(&shared, &stream);
            let _ = stream.shutdown(Shutdown::Both);
            lock(&shared.connections).remove(&number);
        });
    }
}

/// Answers the requests of one connection until one of both sides has enough.
fn serve(shared: &Shared, stream: &TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    shared.pace.travel();
    let mut reader = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head)? == 0 {
                return Ok(());
            }
        }
        shared.requests.fetch_add(1, SeqCst);
        shared.pace.travel();
        let target = head.split(' ').nth(1).unwrap_or_default();
        let below = target.strip_prefix("/ipfs/").unwrap_or(target);
        let (cid, query) = below.split_once('?').unwrap_or((below, ""));
        let is_car = query == CAR;
        let fault = lock(&shared.plan)(if is_car { below } else { cid });
        if cid != PROBE {
            lock(&shared.log).push(Asked {
                cid: cid.to_owned(),
                is_car,
                head: head.clone(),
                at: Instant::now(),
                fault,
            });
        }
        if !shared.answer(stream, &head, target, fault)? {
            return Ok(());
        }
    }
}

/// A test that failed while it held a lock has told why.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
