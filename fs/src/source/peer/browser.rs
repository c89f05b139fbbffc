//! Who is on the local network: one mDNS browser for the process, which keeps the lists of all mounts up to date.
//!
//! It runs while somebody has a `peer:` source, on a thread of its own beside that of the mDNS library, so that it needs no
//! runtime. Bounded are the neighbours known, those in a list at a time, and what the library remembers, which has no
//! bound of its own: beyond [`MAX_RECORDS`] it is begun anew.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use g8_cache::{Source, Sources, WeakSources};
use mdns_sd::{
    DaemonEvent, IfKind, Receiver, RecvTimeoutError, ResolvedService, ServiceDaemon, ServiceEvent,
};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::address::choose;
use super::neighbour::Neighbour;
use super::{PeerError, SERVICE, SPEC, VERSION};
use crate::source::http::ClientError;

/// Neighbours in one list: each costs a request for a block that nobody has, and a list has other sources too.
const MAX_LISTED: usize = 8;
/// Neighbours known, so that those that do not work can be replaced.
const MAX_KNOWN: usize = 64;
/// Names known of one: a gateway that was killed and started again has two for a while.
const MAX_NAMES: usize = 4;
/// Wrong blocks after which another neighbour is tried in the place of this one.
const LIES: u64 = 3;
/// Records of others that the mDNS library may remember. A neighbour is five.
const MAX_RECORDS: i64 = 20_000;
/// How often lists and bounds are looked at when nothing happens.
const TICK: Duration = Duration::from_secs(1);
/// How often the library is asked what it remembers, and how long it may take to say.
const COUNT_EVERY: Duration = Duration::from_secs(10);
const COUNT_WITHIN: Duration = Duration::from_secs(5);
/// Events that are looked at before the lists are.
const MAX_EVENTS: usize = 256;
/// How long a neighbour that is doubted may take to answer, as RFC 6762 has it.
const ANSWER: Duration = Duration::from_secs(10);

/// The browser of this process: it is of the process because port 5353 is. None while nobody needs it.
static OF_PROCESS: Mutex<Weak<Browser>> = Mutex::new(Weak::new());

/// The browser. It ends with the last who has it.
pub(super) struct Browser(Arc<Shared>);

/// What its thread, its neighbours and its users share.
pub(super) struct Shared {
    mdns: Mutex<ServiceDaemon>,
    is_over: AtomicBool,
    state: Mutex<State>,
    count: watch::Sender<usize>,
    began: Instant,
}

/// Who is there, and who wants to have them.
#[derive(Default)]
struct State {
    known: Vec<Known>,
    followers: Vec<Follower>,
}

/// A list that neighbours are put into.
struct Follower {
    list: WeakSources,
    /// The record of each neighbour: who goes and comes back stands as before.
    sources: HashMap<SocketAddr, Arc<Source>>,
}

/// A neighbour that was found.
struct Known {
    /// It is gone when all names that lead to it are.
    names: Vec<String>,
    address: SocketAddr,
    origin: Arc<Neighbour>,
}

impl Known {
    /// The newest name is what it is asked for by.
    fn add_name(&mut self, name: &str) {
        self.names.retain(|known| known != name);
        if self.names.len() == MAX_NAMES {
            self.names.remove(0);
        }
        self.names.push(name.to_owned());
        self.origin.rename(name);
    }
}

impl Browser {
    /// The one of this process, started if need be.
    pub(super) fn of_process() -> Result<Arc<Browser>, PeerError> {
        let mut of_process = OF_PROCESS.lock();
        if let Some(browser) = of_process.upgrade() {
            return Ok(browser);
        }
        let (mdns, events) = browse().map_err(PeerError::Mdns)?;
        let shared = Arc::new(Shared {
            mdns: Mutex::new(mdns),
            is_over: AtomicBool::new(false),
            state: Mutex::default(),
            count: watch::Sender::new(0),
            began: Instant::now(),
        });
        let browser = Arc::new(Browser(Arc::clone(&shared)));
        let run = move || Watcher { shared, origins: HashMap::new() }.run(events);
        thread::Builder::new().name("g8-neighbours".into()).spawn(run).map_err(PeerError::Start)?;
        *of_process = Arc::downgrade(&browser);
        Ok(browser)
    }

    /// Puts neighbours into a list from here on.
    pub(super) fn follow(&self, sources: &Sources) {
        let mut follower = Follower { list: sources.downgrade(), sources: HashMap::new() };
        let state = &mut *self.0.state.lock();
        // One that had its `peer:` taken out and gets another is followed once.
        state.followers.retain(|other| !other.list.is_of(sources));
        if follower.update(&state.known) {
            state.followers.push(follower);
        }
    }

    /// How many neighbours there are, and its changes.
    pub(super) fn count(&self) -> watch::Receiver<usize> {
        self.0.count.subscribe()
    }

    /// Since when they are looked for.
    pub(super) fn began(&self) -> Instant {
        self.0.began
    }
}

impl Drop for Browser {
    /// Its thread sees it in a moment.
    fn drop(&mut self) {
        self.0.is_over.store(true, SeqCst);
    }
}

impl Shared {
    /// Has mDNS find out whether a neighbour is still there.
    pub(super) fn verify(&self, name: &str) {
        if let Err(error) = self.mdns.lock().verify(name.to_owned(), ANSWER) {
            tracing::debug!(%error, "a neighbour cannot be verified");
        }
    }
}

/// Looks for neighbours on all links.
fn browse() -> mdns_sd::Result<(ServiceDaemon, Receiver<ServiceEvent>)> {
    let mdns = ServiceDaemon::new()?;
    log_trouble(&mdns);
    mdns.disable_interface(vec![IfKind::LoopbackV4, IfKind::LoopbackV6])?;
    let events = mdns.browse(SERVICE)?;
    Ok((mdns, events))
}

/// Logs what goes wrong in an mDNS daemon, until its end.
pub(super) fn log_trouble(mdns: &ServiceDaemon) {
    let Ok(events) = mdns.monitor() else { return };
    let log = move || {
        while let Ok(event) = events.recv() {
            if let DaemonEvent::Error(error) = event {
                tracing::warn!(%error, "mDNS");
            }
        }
    };
    if let Err(error) = thread::Builder::new().name("g8-mdns-log".into()).spawn(log) {
        tracing::warn!(%error, "trouble with mDNS will not be logged");
    }
}

/// The thread of the browser.
struct Watcher {
    shared: Arc<Shared>,
    /// The origins of neighbours that were here: one that comes back has its connections still, and its failures.
    origins: HashMap<SocketAddr, Arc<Neighbour>>,
}

impl Watcher {
    fn run(mut self, mut events: Receiver<ServiceEvent>) {
        let mut counted = Instant::now();
        while !self.shared.is_over.load(SeqCst) {
            match events.recv_timeout(TICK) {
                Ok(event) => {
                    self.note(event);
                    // What came together is put into the lists together.
                    events.try_iter().take(MAX_EVENTS).for_each(|event| self.note(event));
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => match self.begin_anew() {
                    Some(next) => events = next,
                    None => thread::sleep(TICK),
                },
            }
            if counted.elapsed() >= COUNT_EVERY {
                counted = Instant::now();
                self.bound_memory();
            }
            self.update_lists();
        }
        self.end();
    }

    /// The mDNS daemon takes so many orders at a time, and this one must reach it.
    fn end(&self) {
        let mdns = self.shared.mdns.lock().clone();
        while let Err(mdns_sd::Error::Again) = mdns.shutdown() {
            thread::sleep(TICK);
        }
    }

    fn begin_anew(&self) -> Option<Receiver<ServiceEvent>> {
        if self.shared.is_over.load(SeqCst) {
            return None;
        }
        // Nothing tells who goes meanwhile, so all are found anew.
        self.shared.state.lock().known.clear();
        match browse() {
            Ok((mdns, events)) => {
                let ended = std::mem::replace(&mut *self.shared.mdns.lock(), mdns);
                // It has ended already, or its events are not taken any more.
                let _ = ended.shutdown();
                Some(events)
            }
            Err(error) => {
                tracing::warn!(%error, "neighbours cannot be looked for now");
                None
            }
        }
    }

    /// Ends the mDNS daemon when it remembers too much; another one is begun then.
    fn bound_memory(&self) {
        let mdns = self.shared.mdns.lock().clone();
        let Ok(metrics) = mdns.get_metrics() else { return };
        let Ok(metrics) = metrics.recv_timeout(COUNT_WITHIN) else { return };
        let records: i64 =
            metrics.iter().filter(|(name, _)| name.starts_with("cached-")).map(|(_, n)| n).sum();
        if records > MAX_RECORDS {
            tracing::warn!(
                records,
                "somebody floods the local network with mDNS: looking for neighbours anew"
            );
            let _ = mdns.shutdown();
        }
    }

    fn note(&mut self, event: ServiceEvent) {
        match event {
            ServiceEvent::ServiceResolved(service) => self.found(&service),
            ServiceEvent::ServiceRemoved(_, name) => self.lost(&name),
            // Found is not yet resolved, the search itself is ours; the list of events is open-ended.
            _ => {}
        }
    }

    fn lost(&self, name: &str) {
        self.shared.state.lock().known.retain_mut(|known| {
            known.names.retain(|other| other != name);
            let is_known = !known.names.is_empty();
            if !is_known {
                tracing::info!(address = %known.address, "a neighbour went");
            }
            is_known
        });
    }

    fn found(&mut self, service: &ResolvedService) {
        let (key, version) = VERSION;
        if service.get_property_val_str(key) != Some(version) {
            return tracing::debug!("a neighbour speaks another version");
        }
        let interfaces = match if_addrs::get_if_addrs() {
            Ok(interfaces) => interfaces,
            Err(error) => {
                return tracing::warn!(%error, "a neighbour is not asked: no look at our interfaces");
            }
        };
        let name = service.get_fullname();
        let Some(address) = choose(service.get_addresses(), service.get_port(), &interfaces) else {
            return self.lost(name);
        };
        if self.is_known(name, address) {
            return;
        }
        // It has another address than before.
        self.lost(name);
        match self.origin(name, address) {
            Ok(origin) => {
                let known = &mut self.shared.state.lock().known;
                if known.len() >= MAX_KNOWN {
                    // Whoever announces what is not there must not keep out those who are.
                    match known.iter().position(|known| known.origin.is_failing()) {
                        Some(failing) => drop(known.remove(failing)),
                        None => return tracing::debug!(%address, "more neighbours than can be known"),
                    }
                }
                tracing::info!(%address, "a neighbour came");
                known.push(Known { names: vec![name.to_owned()], address, origin });
            }
            Err(error) => tracing::warn!(%error, %address, "a neighbour is not asked"),
        }
    }

    /// Whether a neighbour is known at this address; the name leads to it from here on.
    fn is_known(&self, name: &str, address: SocketAddr) -> bool {
        let mut state = self.shared.state.lock();
        let known = state.known.iter_mut().find(|known| known.address == address);
        let is_known = known.is_some();
        if let Some(known) = known {
            known.add_name(name);
        }
        is_known
    }

    fn origin(&mut self, name: &str, address: SocketAddr) -> Result<Arc<Neighbour>, ClientError> {
        if let Some(origin) = self.origins.get(&address) {
            origin.rename(name);
            return Ok(Arc::clone(origin));
        }
        if self.origins.len() >= 2 * MAX_KNOWN {
            let state = self.shared.state.lock();
            self.origins.retain(|address, _| state.known.iter().any(|known| known.address == *address));
        }
        let origin = Arc::new(Neighbour::new(name, address, Arc::downgrade(&self.shared))?);
        self.origins.insert(address, Arc::clone(&origin));
        Ok(origin)
    }

    /// Brings every list up to date, then tells those who wait.
    fn update_lists(&self) {
        let now = {
            let State { known, followers } = &mut *self.shared.state.lock();
            followers.retain_mut(|follower| follower.update(known));
            known.len()
        };
        self.shared.count.send_if_modified(|count| std::mem::replace(count, now) != now);
    }
}

impl Follower {
    /// False when the list, or its `peer:`, is gone.
    fn update(&mut self, known: &[Known]) -> bool {
        let Some(list) = self.list.upgrade() else { return false };
        let listed = list.list();
        let is_wanted = listed.iter().any(|source| **source.spec() == *SPEC);
        let mut ranked: Vec<&Known> = if is_wanted { known.iter().collect() } else { Vec::new() };
        // Those that fail or lie stay for as long as nobody else wants their places.
        // Each is judged once: a key that changes while it sorts is a panic.
        ranked.sort_by_cached_key(|known| self.is_bad(known));
        ranked.truncate(MAX_LISTED);
        let wanted: Vec<Arc<Source>> = ranked.into_iter().map(|known| self.source(known)).collect();
        let is_there =
            |list: &[Arc<Source>], source: &Arc<Source>| list.iter().any(|other| Arc::ptr_eq(other, source));
        let neighbours = listed
            .iter()
            .filter(|source| source.spec().len() > SPEC.len() && source.spec().starts_with(SPEC));
        for gone in neighbours.filter(|source| !is_there(&wanted, source)) {
            if let Err(error) = list.remove_even_last(gone.spec()) {
                tracing::debug!(%error, "a neighbour that went");
            }
        }
        for come in wanted.iter().rev().filter(|source| !is_there(&listed, source)) {
            if let Err(error) = list.add_behind(SPEC, Arc::clone(come)) {
                tracing::debug!(%error, "a neighbour that came");
            }
        }
        if self.sources.len() > 2 * MAX_KNOWN {
            self.sources.retain(|address, _| known.iter().any(|known| known.address == *address));
        }
        is_wanted
    }

    fn is_bad(&self, known: &Known) -> bool {
        let lies = self.sources.get(&known.address).map_or(0, |source| source.snapshot().wrong);
        known.origin.is_failing() || lies >= LIES
    }

    fn source(&mut self, known: &Known) -> Arc<Source> {
        let make = || Arc::new(Source::new(known.origin.clone()));
        Arc::clone(self.sources.entry(known.address).or_insert_with(make))
    }
}
