//! The engine: one cache, one runtime, many mounts.
//!
//! [`Engine::mount`] opens an image, judges it, and starts a FUSE session for it; the mount ends when somebody
//! unmounts it, by [`Engine::umount`] or from outside. Nothing here is a process: `daemon` puts an engine behind a
//! socket, and a node links it in.

mod mount;
mod mountinfo;
pub mod mountpoint;

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use g8_cache::{BlockId, Cache, CacheConfig};
use parking_lot::{Condvar, Mutex};

pub use mount::{Mode, MountError, MountSpec, MountStatus};

use crate::filesystem::Filesystem;
use crate::image::Image;
use crate::source::open_sources;
use mount::Mount;
use mountpoint::PathRules;

/// How long a session thread of an unmounted file system may take to end.
const SESSION_END: Duration = Duration::from_secs(5);

/// How an engine is set up.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Folder of the cache.
    pub cache_dir: PathBuf,
    /// Most bytes of blocks on the disk.
    pub disk_budget: u64,
    /// Bytes of the file system below the cache that always stay free.
    pub free_floor: u64,
    /// Most bytes of decoded frames in memory.
    pub memory_budget: u64,
}

/// A mount that is being made or is there.
enum Slot {
    Making,
    Live(Arc<Mount>),
}

/// The mounts of an engine, and who wants to know when one ends.
#[derive(Default)]
struct Slots {
    map: Mutex<HashMap<PathBuf, Slot>>,
    changed: Condvar,
    on_end: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl Slots {
    fn remove(&self, mountpoint: &Path) {
        self.map.lock().remove(mountpoint);
        self.changed.notify_all();
        if let Some(wake) = self.on_end.get() {
            wake();
        }
    }
}

/// See the module's text.
pub struct Engine {
    cache: Cache,
    cache_dir: PathBuf,
    /// `Some` until the engine is dropped.
    runtime: Option<tokio::runtime::Runtime>,
    mounts: Arc<Slots>,
}

/// Why an engine does not start.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The cache cannot be used.
    #[error("cache {0}")]
    Cache(PathBuf, #[source] g8_cache::OpenError),
    /// The threads that fetch cannot be started.
    #[error("starting the fetch runtime")]
    Runtime(#[source] std::io::Error),
    /// The cache lies where reading it would wait for ourselves.
    #[error(transparent)]
    Path(#[from] MountError),
    /// Somebody else could put symlinks and blocks into the cache folder.
    #[error("cache {0} belongs to another user or can be written by others: use a --cache of your own")]
    Foreign(PathBuf),
}

impl Engine {
    /// Opens the cache, which must belong to nobody else, and starts the threads that fetch.
    pub fn start(config: EngineConfig) -> Result<Self, EngineError> {
        let cache_dir = std::path::absolute(&config.cache_dir).map_err(EngineError::Runtime)?;
        PathRules::read()?.refuse_own("cache", &cache_dir)?;
        refuse_foreign(&cache_dir)?;
        let cache = Cache::open(CacheConfig {
            dir: Some(cache_dir.clone()),
            disk_budget: config.disk_budget,
            free_floor: config.free_floor,
            memory_budget: config.memory_budget,
        });
        let cache = cache.map_err(|e| EngineError::Cache(cache_dir.clone(), e))?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .thread_name("g8-fetch")
            .enable_all()
            .build()
            .map_err(EngineError::Runtime)?;
        Ok(Engine { cache, cache_dir, runtime: Some(runtime), mounts: Arc::default() })
    }

    /// The cache.
    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// Mounts an flist and returns when it can be used.
    pub fn mount(&self, spec: &MountSpec) -> Result<MountStatus, MountError> {
        let id: BlockId =
            spec.reference.parse().map_err(|source| MountError::Reference(spec.reference.clone(), source))?;
        let sources = open_sources(&spec.sources, spec.source_options)?;
        let rules = PathRules::read()?;
        rules.refuse_own("cache", &self.cache_dir)?;
        rules.refuse_hiding("cache", &self.cache_dir, &spec.mountpoint)?;
        for path in spec.local_sources() {
            rules.refuse_own("source", path)?;
            rules.refuse_hiding("source", path, &spec.mountpoint)?;
        }
        let mountpoint = mountpoint::prepare(&spec.mountpoint)?;
        let reserved = Reserved::new(&self.mounts, &mountpoint)?;
        let deadline = Instant::now() + spec.deadline;
        let opened = Image::open(id, &self.cache, &sources, Some(&self.cache_dir), deadline);
        let image = Arc::new(self.runtime().block_on(opened)?);
        // A failed read-ahead is asked for once more as a plain read before the reader sees the error.
        let fs = Arc::new(Filesystem::new(image, self.cache.clone(), sources, spec.deadline / 2));
        let mount = Mount::start(spec, &mountpoint, fs, &self.cache_dir, self.runtime().handle())?;
        let mount = reserved.fill(mount)?;
        Ok(mount.status(&self.cache_dir))
    }

    /// Unmounts; `lazy` detaches a busy mount, which then ends with its last user.
    pub fn umount(&self, mountpoint: &Path, lazy: bool) -> Result<(), MountError> {
        let mount = self.find(mountpoint).ok_or_else(|| MountError::NotMounted(mountpoint.to_owned()))?;
        mountpoint::unmount(&mount.mountpoint, lazy)?;
        if !lazy {
            self.wait_gone(&mount.mountpoint, SESSION_END);
        }
        Ok(())
    }

    /// What is mounted, sorted by mountpoint.
    pub fn mounts(&self) -> Vec<MountStatus> {
        let mut list: Vec<MountStatus> = self.live().iter().map(|m| m.status(&self.cache_dir)).collect();
        list.sort_by(|a, b| a.mountpoint.cmp(&b.mountpoint));
        list
    }

    /// Whether nothing is mounted nor being mounted.
    pub fn is_idle(&self) -> bool {
        self.mounts.map.lock().is_empty()
    }

    /// Calls `wake` whenever a mount has ended. Set once.
    pub fn on_mount_end(&self, wake: impl Fn() + Send + Sync + 'static) {
        if self.mounts.on_end.set(Box::new(wake)).is_err() {
            tracing::error!("somebody else is told of ended mounts already");
        }
    }

    /// Ends every mount: the free ones properly, the busy ones by detaching them.
    pub fn shutdown(&self) {
        let live = self.live();
        for mount in &live {
            if let Err(error) = mountpoint::unmount(&mount.mountpoint, false) {
                tracing::warn!(mountpoint = %mount.mountpoint.display(), %error, "detaching a busy mount");
                if let Err(error) = mountpoint::unmount(&mount.mountpoint, true) {
                    tracing::error!(mountpoint = %mount.mountpoint.display(), %error, "not unmounted");
                }
            }
        }
        let end = Instant::now() + SESSION_END;
        for mount in &live {
            self.wait_gone(&mount.mountpoint, end.saturating_duration_since(Instant::now()));
        }
        self.cache.flush();
    }

    fn runtime(&self) -> &tokio::runtime::Runtime {
        self.runtime.as_ref().expect("it is taken only by drop")
    }

    fn live(&self) -> Vec<Arc<Mount>> {
        let slots = self.mounts.map.lock();
        slots.values().filter_map(|s| if let Slot::Live(m) = s { Some(m.clone()) } else { None }).collect()
    }

    fn find(&self, mountpoint: &Path) -> Option<Arc<Mount>> {
        match self.mounts.map.lock().get(mountpoint)? {
            Slot::Live(mount) => Some(mount.clone()),
            Slot::Making => None,
        }
    }

    fn wait_gone(&self, mountpoint: &Path, limit: Duration) {
        let end = Instant::now() + limit;
        let mut slots = self.mounts.map.lock();
        while slots.contains_key(mountpoint) && !self.mounts.changed.wait_until(&mut slots, end).timed_out() {
        }
    }
}

impl Drop for Engine {
    /// A source that hangs in a system call must not keep the process alive.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Whoever may write into the folder decides what we open there.
fn refuse_foreign(cache_dir: &Path) -> Result<(), EngineError> {
    match std::fs::metadata(cache_dir) {
        Ok(meta) if meta.uid() != rustix::process::geteuid().as_raw() || meta.mode() & 0o022 != 0 => {
            Err(EngineError::Foreign(cache_dir.to_owned()))
        }
        // It is not there yet, or opening the cache says better what is wrong.
        Ok(_) | Err(_) => Ok(()),
    }
}

/// A mountpoint that nobody else may take while an image is opened for it. Given back when making the mount fails.
struct Reserved {
    slots: Arc<Slots>,
    mountpoint: PathBuf,
    filled: bool,
}

impl Reserved {
    fn new(slots: &Arc<Slots>, mountpoint: &Path) -> Result<Self, MountError> {
        let mut map = slots.map.lock();
        if map.contains_key(mountpoint) {
            return Err(MountError::Busy(mountpoint.to_owned()));
        }
        map.insert(mountpoint.to_owned(), Slot::Making);
        Ok(Reserved { slots: slots.clone(), mountpoint: mountpoint.to_owned(), filled: false })
    }

    /// Puts the mount in its place, serves it, and sees to it that the place is free again when the session ends.
    fn fill(mut self, mount: Mount) -> Result<Arc<Mount>, MountError> {
        let mount = Arc::new(mount);
        let (slots, mountpoint) = (self.slots.clone(), self.mountpoint.clone());
        self.slots.map.lock().insert(self.mountpoint.clone(), Slot::Live(mount.clone()));
        mount.serve(move || slots.remove(&mountpoint))?;
        self.filled = true;
        Ok(mount)
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if !self.filled {
            self.slots.remove(&self.mountpoint);
        }
    }
}
