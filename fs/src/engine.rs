//! The engine: one cache, one runtime, many mounts.
//!
//! [`Engine::mount`] opens an image, judges it, and starts a FUSE session for it; the mount ends when somebody
//! unmounts it, by [`Engine::umount`] or from outside. Nothing here is a process: `daemon` puts an engine behind a
//! socket, and a node links it in.

mod defaults;
mod devices;
mod error;
mod fuse_mode;
mod images;
mod kernel_mode;
mod live;
mod mount;
pub mod mountinfo;
pub mod mountpoint;
mod probe;
mod read_ahead;
mod resume;
mod spec;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use g8_cache::{Cache, CacheConfig, Sources};
use parking_lot::{Condvar, Mutex};

pub use defaults::default_cache;
pub use error::MountError;
pub use live::Last;
pub use spec::{Mode, MountSpec, MountStatus};

use crate::image::Image;
use crate::replay::{Replay, Way};
use crate::source::open_sources_of;
use images::Images;
use mount::{Mount, Parts};
use mountpoint::{OwnMount, PathRules};
use probe::Probe;

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

/// The mounts of an engine, and who wants to know when one ends.
#[derive(Default)]
struct Mounts {
    table: Mutex<Table>,
    changed: Condvar,
    on_end: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

#[derive(Default)]
struct Table {
    /// Mountpoints that are being mounted on.
    making: HashSet<PathBuf>,
    /// What is served, wherever it is seen; also what was detached and still has users.
    live: Vec<Arc<Mount>>,
}

impl Mounts {
    fn change(&self, change: impl FnOnce(&mut Table)) {
        change(&mut self.table.lock());
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
    mounts: Arc<Mounts>,
    images: Images,
    probe: Probe,
}

/// Why an engine does not start.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The cache cannot be used.
    #[error(transparent)]
    Cache(#[from] g8_cache::OpenError),
    /// The threads that fetch cannot be started.
    #[error("starting the fetch runtime")]
    Runtime(#[source] std::io::Error),
    /// The cache lies where reading it would wait for ourselves.
    #[error(transparent)]
    Path(#[from] MountError),
}

impl Engine {
    /// Opens the cache, which must belong to nobody else, and starts the threads that fetch.
    pub fn start(config: EngineConfig) -> Result<Self, EngineError> {
        let cache_dir = std::path::absolute(&config.cache_dir).map_err(EngineError::Runtime)?;
        PathRules::read()?.refuse_own("cache", &cache_dir)?;
        let cache = Cache::open(CacheConfig {
            dir: Some(cache_dir.clone()),
            disk_budget: config.disk_budget,
            free_floor: config.free_floor,
            memory_budget: config.memory_budget,
        });
        let cache = cache?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .thread_name("g8-fetch")
            .enable_all()
            .build()
            .map_err(EngineError::Runtime)?;
        Ok(Engine {
            cache,
            cache_dir,
            runtime: Some(runtime),
            mounts: Arc::default(),
            images: Images::default(),
            probe: Probe::default(),
        })
    }

    /// The cache.
    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// Mounts an flist and returns when it can be used.
    pub fn mount(&self, spec: &MountSpec) -> Result<MountStatus, MountError> {
        let rules = PathRules::read()?;
        rules.refuse_own("cache", &self.cache_dir)?;
        rules.refuse_hiding("cache", &self.cache_dir, &spec.mountpoint)?;
        for path in spec.local_sources() {
            rules.refuse_own("source", path)?;
            rules.refuse_hiding("source", path, &spec.mountpoint)?;
        }
        let mountpoint = mountpoint::prepare(&spec.mountpoint, |own| self.is_orphan(own))?;
        let _reserved = Reserved::new(&self.mounts, &mountpoint.path)?;
        let began = Instant::now();
        let sources = open_sources_of(spec.id()?, &spec.sources, spec.open_by(began + spec.deadline))?;
        self.serve(spec, &mountpoint.path, (began, sources), |parts, opened_in| {
            Mount::start(parts, &mountpoint.directory, opened_in, &self.probe)
        })
    }

    /// Opens the image of a mount whose sources are open, has it made, and keeps it.
    fn serve(
        &self,
        spec: &MountSpec,
        mountpoint: &Path,
        (began, sources): (Instant, Sources),
        make: impl FnOnce(&Parts<'_>, Duration) -> Result<Mount, MountError>,
    ) -> Result<MountStatus, MountError> {
        let id = spec.id()?;
        let way = || Way { cache: self.cache.clone(), sources: sources.clone(), deadline: spec.deadline };
        let replay = spec.profile.map(|profile| Replay::begin(profile, way(), self.runtime().handle()));
        let opened = Image::open(id, &self.cache, &sources, Some(&self.cache_dir), began + spec.deadline);
        let image = self.images.get_or(id, || self.runtime().block_on(opened))?;
        let replay = replay.map(|(replay, opened)| {
            // One that has ended already waits for no image.
            let _ = opened.send(image.clone());
            Arc::new(replay)
        });
        let opened_in = began.elapsed();
        let parts = Parts {
            spec,
            mountpoint,
            image,
            cache: self.cache.clone(),
            sources,
            cache_dir: &self.cache_dir,
            runtime: self.runtime().handle(),
            replay,
        };
        let mount = self.look_after(make(&parts, opened_in)?);
        Ok(mount.status(&self.cache_dir))
    }

    /// Ends the mount seen at `path`; `lazy` detaches it although it is in use, and it ends with its last user.
    pub fn umount(&self, path: &Path, lazy: bool) -> Result<(), MountError> {
        // Is it one of ours at all, and not covered?
        let own = mountpoint::own_mount_at(path)?;
        if let Some(mount) = self.served_at(path)? {
            mount.unmount(path, lazy)?;
            // Bound elsewhere, or detached with users, it goes on.
            let gone = mount.location().everywhere().is_ok_and(|paths| paths.is_empty());
            if gone && !lazy {
                self.wait_gone(&mount, Instant::now() + SESSION_END);
            }
            return Ok(());
        }
        if self.is_orphan(&own) {
            return mountpoint::unmount(path, true);
        }
        Err(MountError::NotMounted(path.to_owned()))
    }

    /// The mount that is seen at `path`.
    fn mount_at(&self, path: &Path) -> Result<Arc<Mount>, MountError> {
        mountpoint::own_mount_at(path)?;
        self.served_at(path)?.ok_or_else(|| MountError::NotMounted(path.to_owned()))
    }

    fn served_at(&self, path: &Path) -> Result<Option<Arc<Mount>>, MountError> {
        for mount in self.live() {
            let on_top = mount.location().is_on_top(path);
            if on_top.map_err(MountError::io("reading the mount table for", path))? {
                return Ok(Some(mount));
            }
        }
        Ok(None)
    }

    /// Whether a mount in mode `kernel` was served by a daemon of this cache that is no more: the kernel does not tell, but
    /// a cache has one daemon, and that is us.
    fn is_orphan(&self, own: &OwnMount) -> bool {
        let table = self.mounts.table.lock();
        let is_ours = || table.live.iter().any(|mount| mount.location().device == own.device);
        own.mode == Mode::Kernel
            && own.cache == self.cache_dir
            && !table.making.contains(&own.mountpoint)
            && !is_ours()
    }

    /// What is mounted, sorted by mountpoint. What was detached and still has users is not seen anywhere, nor here.
    pub fn mounts(&self) -> Vec<MountStatus> {
        let seen = |m: &&Arc<Mount>| m.location().everywhere().is_ok_and(|paths| !paths.is_empty());
        let mut list: Vec<MountStatus> =
            self.live().iter().filter(seen).map(|m| m.status(&self.cache_dir)).collect();
        list.sort_by(|a, b| a.mountpoint.cmp(&b.mountpoint));
        list
    }

    /// Whether nothing is mounted nor being mounted.
    pub fn is_idle(&self) -> bool {
        let table = self.mounts.table.lock();
        table.making.is_empty() && table.live.is_empty()
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
            mount.end();
        }
        let end = Instant::now() + SESSION_END;
        for mount in &live {
            self.wait_gone(mount, end);
        }
        self.cache.flush();
    }

    /// Folder of the cache.
    pub fn cache_dir(&self) -> &Path {
        &self.cache_dir
    }

    pub(crate) fn runtime(&self) -> &tokio::runtime::Runtime {
        self.runtime.as_ref().expect("it is taken only by drop")
    }

    fn live(&self) -> Vec<Arc<Mount>> {
        self.mounts.table.lock().live.clone()
    }

    /// Keeps a mount until it ends.
    fn look_after(&self, mount: Mount) -> Arc<Mount> {
        let mount = Arc::new(mount);
        self.mounts.change(|table| table.live.push(mount.clone()));
        let (mounts, ended) = (self.mounts.clone(), Arc::downgrade(&mount));
        mount.on_end(move || {
            mounts.change(|table| table.live.retain(|m| !std::ptr::eq(Arc::as_ptr(m), ended.as_ptr())))
        });
        mount
    }

    fn wait_gone(&self, mount: &Arc<Mount>, end: Instant) {
        let mut table = self.mounts.table.lock();
        while table.live.iter().any(|m| Arc::ptr_eq(m, mount))
            && !self.mounts.changed.wait_until(&mut table, end).timed_out()
        {}
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

/// A mountpoint that nobody else may take while an image is opened for it.
struct Reserved {
    mounts: Arc<Mounts>,
    mountpoint: PathBuf,
}

impl Reserved {
    fn new(mounts: &Arc<Mounts>, mountpoint: &Path) -> Result<Self, MountError> {
        if !mounts.table.lock().making.insert(mountpoint.to_owned()) {
            return Err(MountError::Busy(mountpoint.to_owned()));
        }
        Ok(Reserved { mounts: mounts.clone(), mountpoint: mountpoint.to_owned() })
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.mounts.change(|table| {
            table.making.remove(&self.mountpoint);
        });
    }
}
