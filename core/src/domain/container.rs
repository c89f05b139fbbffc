//! Containers: a root filesystem from an flist, isolated, under a first process that takes commands.
//!
//! ```text
//! Wanted --create()--> build: record, images, spawner, go --> Container --end of init--> tear_down: the reverse
//! ```
//!
//! Before anything is made a record of it lies on disk, and it goes last: whatever fails or dies in between, the same
//! [`tear_down`](life) takes apart what is there, for a step of `create` that fails, for the end of a container, and in the
//! manager that comes after one that was killed. Containers themselves belong to the spawner, and outlive the manager.
//!
//! Limits: what a container writes lies in memory or on a disk, and is gone with it. An image that is mounted is asked of the
//! sources of all that use it, in the order in which they came; a source with other credentials than before is taken for the same. When the daemon that serves it dies and no other one can go on with it, what a container
//! has not read yet is an error to it.

mod ended;
mod etc;
mod image;
mod layers;
mod left;
mod life;
mod record;
mod wanted;

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::StreamExt;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::{Semaphore, oneshot, watch};

pub use ended::{Ended, Words};
pub use image::ImageError;
pub use layers::{LayerError, Layers};
pub use wanted::{Upper, Wanted};

use self::ended::AllEnded;
use self::image::{Images, Lost};
use self::left::Left;
use self::record::Records;
use crate::domain::container_net::{Attached, NetworkError, Networks};
use crate::domain::filesystem::Files;
use crate::fault::Fault;
use crate::job::Adopted;
use crate::log::Logs;
use crate::spawner::{Child, Exit, Handle, SpawnError, Spawner};

/// Number of a container.
pub type Id = u32;

/// Most containers of a node.
const MAX_CONTAINERS: usize = 1000;
/// The largest number; the old protocol has two bytes for it.
const MAX_ID: Id = 0xffff;
/// Most files of a container that callers hold open.
const FILES: usize = 64;
/// Most errands in a container at once; who sends more waits.
const ERRANDS: usize = 16;
/// How long daemons may take to say what they serve, when a manager takes over what another has left.
const ANSWER: Duration = Duration::from_secs(5);
/// How many containers are taken over at once.
const TAKEN: usize = 16;
/// How long a start waits until what does not run any more is taken apart.
const APART: Duration = Duration::from_secs(3);
/// What a container's entrypoint has to end after a polite signal.
const GRACE: Duration = Duration::from_secs(2);

/// Why there is no container.
#[derive(Debug, thiserror::Error)]
pub enum ContainerError {
    /// It cannot be as it is asked for.
    #[error("{0}")]
    Wanted(String),
    /// Enough.
    #[error("the node has {MAX_CONTAINERS} containers, and makes no more: terminate some")]
    TooMany,
    /// No such container.
    #[error("no container {0}")]
    Unknown(String),
    /// Its flist, or one of those that it shows.
    #[error("flist {0}")]
    Image(String, #[source] ImageError),
    /// Its programs are another machine's.
    #[error("the programs of flist {flist} are for {arch}, and this node is {here}: none of them runs here")]
    Architecture {
        /// The flist.
        flist: String,
        /// What it is for.
        arch: String,
        /// What this is.
        here: &'static str,
    },
    /// What of the host it shall show is not there.
    #[error("{path} cannot be shown in the container")]
    Volume {
        /// On the host.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Where it writes to.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// Whom the image does not know.
    #[error(transparent)]
    User(#[from] g8_container::UserError),
    /// Its network.
    #[error("the network of the container")]
    Network(#[from] NetworkError),
    /// The kernel refused a step.
    #[error("the container is not built")]
    Build(#[source] SpawnError),
    /// Its first process does not answer.
    #[error("the container was built, and its first process does not answer")]
    Silent(#[source] std::io::Error),
    /// Its program.
    #[error("the entrypoint of the container does not start")]
    Entrypoint(#[source] SpawnError),
    /// Its record.
    #[error("the record of the container at {0}")]
    Record(PathBuf, #[source] std::io::Error),
    /// A test says so.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// The node ends, or something panicked.
    #[error("the container was not finished")]
    Interrupted,
}

/// A container that runs.
#[derive(Debug)]
pub struct Container {
    /// Its number.
    pub id: Id,
    /// What it is.
    pub wanted: Wanted,
    /// Its first process, out here.
    pub pid: i32,
    /// Where its image is mounted.
    pub root: PathBuf,
    /// Of each of its images.
    lost: Vec<Lost>,
    /// When it was made, in ms since 1970.
    pub started_ms: u64,
    /// The spawner inside.
    pub spawner: Spawner,
    /// What it is asked for.
    pub errands: Errands,
    /// Ends it.
    init: Handle,
    /// Its entrypoint, if it has one, and that is known.
    entrypoint: OnceLock<Handle>,
    /// What that said last.
    words: Words,
    /// Its jobs that an earlier manager had started.
    pub left: Left,
    ending: AtomicBool,
}

/// What a container is asked for: commands that are carried out in there.
#[derive(Debug)]
pub struct Errands {
    /// Taken by each.
    pub places: Semaphore,
    /// The files in there that callers hold open.
    pub files: Arc<Files>,
    /// Held by who reads or writes one of them.
    pub file_turn: tokio::sync::Mutex<()>,
}

impl Default for Errands {
    fn default() -> Self {
        let places = Semaphore::new(ERRANDS);
        Self { places, files: Files::bounded(FILES), file_turn: tokio::sync::Mutex::default() }
    }
}

/// The place of a number.
#[derive(Debug)]
enum Place {
    /// Being made, or being taken apart.
    Held,
    /// Running.
    Here(Arc<Container>),
}

/// The containers of a node.
#[derive(Debug)]
pub struct Containers {
    spawner: Spawner,
    logs: Arc<Logs>,
    images: Images,
    networks: Arc<Networks>,
    layers: Arc<Layers>,
    records: Records,
    places: Mutex<Places>,
    /// The last ones that have ended.
    pub ended: AllEnded,
    /// Whether all jobs of an earlier manager have said which process they go on with.
    recovered: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Places {
    all: BTreeMap<Id, Place>,
    last: Id,
}

impl Containers {
    /// None yet. Images are mounted below `folder`, records lie there.
    pub fn new(
        spawner: Spawner,
        logs: Arc<Logs>,
        networks: Arc<Networks>,
        layers: Layers,
        folder: PathBuf,
    ) -> Arc<Self> {
        Arc::new(Self {
            spawner,
            logs,
            images: Images::new(folder.join("flists")),
            networks,
            layers: Arc::new(layers),
            records: Records::new(folder.join("containers")),
            places: Mutex::default(),
            ended: AllEnded::default(),
            recovered: watch::Sender::default(),
        })
    }

    /// Makes a container, and returns its number when it runs. A caller that goes away meanwhile leaves none behind.
    pub async fn create(self: &Arc<Self>, wanted: Wanted) -> Result<Id, ContainerError> {
        wanted.check()?;
        let id = self.places.lock().take()?;
        let (sender, receiver) = oneshot::channel();
        let containers = self.clone();
        tokio::spawn(async move {
            let made = containers.make(id, wanted).await;
            let made_id = made.as_ref().ok().copied();
            if let (Err(_gone), Some(id)) = (sender.send(made), made_id) {
                tracing::info!("nobody waits for container {id} any more");
                // Nor has anybody seen it: its program has nothing to end in order.
                let _ = containers.end(id, Duration::ZERO);
            }
        });
        receiver.await.unwrap_or(Err(ContainerError::Interrupted))
    }

    /// All that run, by their numbers.
    pub fn list(&self) -> Vec<Arc<Container>> {
        let mut here = self.here();
        here.retain(|container| !container.ending.load(Ordering::Relaxed));
        here
    }

    /// One that runs, by its number.
    pub fn get(&self, id: Id) -> Result<Arc<Container>, ContainerError> {
        match self.places.lock().all.get(&id) {
            Some(Place::Here(container)) if !container.ending.load(Ordering::Relaxed) => {
                Ok(container.clone())
            }
            Some(Place::Here(_) | Place::Held) | None => Err(ContainerError::Unknown(id.to_string())),
        }
    }

    /// One that runs, by its number or its name; of several of one name that of the lowest number.
    pub fn find(&self, query: &str) -> Result<Arc<Container>, ContainerError> {
        if let Ok(id) = query.parse()
            && let Ok(container) = self.get(id)
        {
            return Ok(container);
        }
        let found = self.list().into_iter().find(|container| container.wanted.name == query);
        found.ok_or_else(|| ContainerError::Unknown(format!("{query:.64?}")))
    }

    /// The network of a container that has one of its own.
    pub fn network(&self, id: Id) -> Option<Attached> {
        self.networks.get(id)
    }

    /// Ends a container, and does not wait for it. It ends, whatever becomes of this manager.
    pub fn terminate(&self, id: Id) -> Result<(), ContainerError> {
        self.end(id, GRACE)
    }

    fn end(&self, id: Id, grace: Duration) -> Result<(), ContainerError> {
        let container = self.get(id)?;
        if container.ending.swap(true, Ordering::Relaxed) {
            return Err(ContainerError::Unknown(id.to_string()));
        }
        self.networks.ends(id);
        // The next manager knows it from its record. Without that there is no time to lose.
        let grace = match self.records.end(id) {
            Ok(()) => grace,
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::error!(
                    container = id,
                    error,
                    "a container is killed at once: that it ends cannot be written down"
                );
                Duration::ZERO
            }
        };
        tokio::spawn(async move { container.end(grace).await });
        Ok(())
    }

    /// Takes over what an earlier manager left: containers that run, and what is left of those that do not. What hangs is
    /// waited for behind the node's back.
    pub async fn adopt(self: &Arc<Self>, mut held: Adopted) {
        let records = self.records.all();
        records.iter().for_each(|(id, _)| self.places.lock().hold(*id));
        let until = tokio::time::Instant::now() + ANSWER;
        let all = records.into_iter().map(|(id, record)| {
            let init = held.remove(&id.to_string());
            self.take_over(id, record, init, until)
        });
        let all: Vec<_> = all.collect();
        let ends: Vec<_> = futures::stream::iter(all).buffer_unordered(TAKEN).collect().await;
        // Who makes the same one again finds its place free, as a rule.
        let _ = tokio::time::timeout(APART, futures::future::join_all(ends.into_iter().flatten())).await;
        // A daemon may hang.
        let containers = self.clone();
        let cleared = tokio::spawn(async move { containers.images.clear().await });
        let _ = tokio::time::timeout(APART, cleared).await;
        let known = self.places.lock().all.keys().copied().collect();
        let layers = self.layers.clone();
        // A disk may hang.
        tokio::spawn(async move { layers.sweep(&known) });
        for (name, child) in held {
            tracing::warn!("nobody knows container {name} any more: it is ended");
            child.handle().signal(libc::SIGKILL).await;
            drop(child);
            if let Ok(id) = name.parse() {
                self.release_network(id).await;
            }
        }
    }

    /// No job of an earlier manager comes any more to ask for its process.
    pub fn recovered(&self) {
        self.recovered.send_replace(true);
    }

    /// Ends all containers, with the node: entrypoints by a polite signal first.
    pub async fn stop(&self, limit: Duration) {
        let containers = self.here();
        for container in &containers {
            // One that is being ended has been told.
            if !container.ending.swap(true, Ordering::Relaxed)
                && let Some(entrypoint) = container.entrypoint.get()
            {
                entrypoint.signal(libc::SIGTERM).await;
            }
        }
        if containers.iter().any(|container| container.entrypoint.get().is_some()) {
            // What does not end by itself is ended below.
            let _ = tokio::time::timeout(limit / 2, self.none_left()).await;
        }
        // Also those that were being made.
        for container in self.here() {
            container.init.signal(libc::SIGKILL).await;
        }
        if tokio::time::timeout(limit / 2, self.none_left()).await.is_err() {
            tracing::warn!("some containers did not end in time");
        }
    }

    /// Unmounts the images that no container uses.
    pub async fn unmount(&self) {
        self.images.clear().await;
    }

    /// All whose first process runs, also those that are being ended.
    fn here(&self) -> Vec<Arc<Container>> {
        let places = self.places.lock();
        let here = places.all.values().filter_map(|place| match place {
            Place::Here(container) => Some(container.clone()),
            Place::Held => None,
        });
        here.collect()
    }

    async fn none_left(&self) {
        while !self.places.lock().all.is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Places {
    /// A number that nobody has; the next ones first, so that one does not soon mean another container.
    fn take(&mut self) -> Result<Id, ContainerError> {
        if self.all.len() >= MAX_CONTAINERS {
            return Err(ContainerError::TooMany);
        }
        loop {
            self.last = self.last % MAX_ID + 1;
            if let std::collections::btree_map::Entry::Vacant(place) = self.all.entry(self.last) {
                place.insert(Place::Held);
                return Ok(self.last);
            }
        }
    }

    /// One that is known from before.
    fn hold(&mut self, id: Id) {
        self.all.insert(id, Place::Held);
        self.last = self.last.max(id);
    }
}

impl Container {
    /// Variables of what runs inside.
    pub fn env(&self) -> BTreeMap<String, String> {
        self.wanted.variables()
    }

    /// Whether a daemon that served one of its images is gone for good: what it has not read of that is an error to it.
    pub fn is_image_lost(&self) -> bool {
        self.lost.iter().any(Lost::is_lost)
    }

    /// What it was asked for with.
    pub fn arguments(&self) -> &Value {
        &self.wanted.arguments
    }

    async fn end(&self, grace: Duration) {
        if let Some(entrypoint) = self.entrypoint.get() {
            entrypoint.signal(libc::SIGTERM).await;
            // Its end ends the container, whoever waits.
            tokio::time::sleep(grace).await;
        }
        self.init.signal(libc::SIGKILL).await;
    }
}

/// The socket to the spawner inside, and the network namespace.
fn ends(child: &mut Child) -> Result<[OwnedFd; 2], ContainerError> {
    child.output.take().ok_or_else(|| ContainerError::Silent(std::io::ErrorKind::NotConnected.into()))
}

/// How a process ended, in words.
fn told(exit: Option<Exit>) -> String {
    match exit {
        Some(Exit::Code(code)) => format!("with code {code}"),
        Some(Exit::Signal(signal)) => format!("by signal {signal}"),
        Some(Exit::TooMany(too_many)) => format!("killed: {too_many}"),
        None => "with its container".into(),
    }
}
