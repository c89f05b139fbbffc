//! Mounts of flists, by the engine's daemon: the one that `flist` uses too, over the same cache and the same store.
//!
//! The daemon is a process of its own, and outlives the manager. When none serves the cache, this program is started as
//! one.

use std::path::{Path, PathBuf};
use std::time::Duration;

use g8_fs::daemon::{Client, ClientError, MountRequest, Reply, Request, Starter};
use g8_fs::engine::{Mode, MountError, MountStatus, default_cache, mountpoint};
use g8_fs::source::{Spec, default_store};

/// The role of this program that is the daemon.
pub const ROLE: &str = "flist-daemon";
/// How long a read may take, and the opening of an image.
const DEADLINE: Duration = Duration::from_secs(60);
/// How long the daemon may take beyond that.
const LIMIT: Duration = Duration::from_secs(20);

/// Why an flist is not mounted, or still is.
#[derive(Debug, thiserror::Error)]
pub enum FlistError {
    /// Nobody says where the cache or the store is.
    #[error("no {0}: HOME is not set, and neither is {1}")]
    Nowhere(&'static str, &'static str),
    /// A source that is none.
    #[error("{0}")]
    Source(String),
    /// The daemon could not, or is not to be had.
    #[error(transparent)]
    Daemon(#[from] ClientError),
    /// No flist is mounted there.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// The daemon answers something else.
    #[error("the daemon of the flists answered {0} with something else")]
    Answer(&'static str),
    /// This program cannot be started as the daemon.
    #[error("this program does not find itself")]
    Program(#[source] std::io::Error),
}

/// A mount, as callers ask for it.
#[derive(Debug)]
pub struct Plan {
    /// Address of the flist.
    pub reference: String,
    /// An existing folder.
    pub mountpoint: PathBuf,
    /// Where blocks come from; the default store when empty.
    pub sources: Vec<String>,
    /// How it reaches the kernel.
    pub mode: Mode,
    /// Honour set-user-ID.
    pub suid: bool,
    /// Honour devices.
    pub dev: bool,
}

/// Mounts an flist.
pub fn mount(plan: Plan) -> Result<MountStatus, FlistError> {
    let request = Request::Mount(MountRequest {
        sources: sources(&plan.sources)?,
        reference: plan.reference,
        mountpoint: plan.mountpoint,
        cache_local: false,
        mode: plan.mode,
        suid: plan.suid,
        dev: plan.dev,
        // A node mounts for all that runs on it.
        allow_other: true,
        deadline_ms: DEADLINE.as_millis() as u64,
        hold: false,
        profile: None,
        record: false,
    });
    let cache = cache()?;
    let arguments = vec![ROLE.into(), "--cache".into(), cache.clone().into()];
    let program = std::env::current_exe().map_err(FlistError::Program)?;
    let client = Client::new(&cache, Some(Starter { program, arguments }));
    match client.ask(&request, DEADLINE + LIMIT)? {
        (Reply::Mounted(status), _) => Ok(*status),
        _ => Err(FlistError::Answer("a mount")),
    }
}

/// Ends a mount; detached at once although it is in use when `lazy`.
pub fn unmount(path: &Path, lazy: bool) -> Result<(), FlistError> {
    let mount = mountpoint::own_mount_at(path)?;
    let request = Request::Umount { mountpoint: mount.mountpoint.clone(), lazy };
    match Client::new(&mount.cache, None).owned_by(mount.owner).ask(&request, LIMIT) {
        Ok((Reply::Done, _)) => Ok(()),
        Ok(_) => Err(FlistError::Answer("an unmount")),
        // Nothing but the entry in the mount table is left.
        Err(ClientError::NotRunning(_)) => Ok(mountpoint::unmount(&mount.mountpoint, true)?),
        Err(e) => Err(e.into()),
    }
}

/// All mounts of this cache.
pub fn list() -> Result<Vec<MountStatus>, FlistError> {
    match Client::new(&cache()?, None).ask(&Request::Mounts, LIMIT) {
        Ok((Reply::Mounts(mounts), _)) => Ok(mounts),
        Ok(_) => Err(FlistError::Answer("a question for the mounts")),
        // It ends when it has nothing to serve.
        Err(ClientError::NotRunning(_)) => Ok(Vec::new()),
        Err(e) => Err(e.into()),
    }
}

/// The mount at a path.
pub fn info(path: &Path) -> Result<MountStatus, FlistError> {
    let found = list()?.into_iter().find(|mount| mount.mountpoint == path);
    found.ok_or_else(|| MountError::NotMounted(path.to_owned()).into())
}

/// The folder of the cache: `$G8_CACHE`, else the default one.
pub fn cache() -> Result<PathBuf, FlistError> {
    let set = std::env::var_os("G8_CACHE").filter(|path| !path.is_empty()).map(PathBuf::from);
    set.or_else(default_cache).ok_or(FlistError::Nowhere("cache", "G8_CACHE"))
}

fn sources(specs: &[String]) -> Result<Vec<Spec>, FlistError> {
    let read = |text: &str| -> Result<Spec, FlistError> {
        let spec: Spec = text.parse().map_err(|e| FlistError::Source(format!("{text:.128?}: {e}")))?;
        spec.absolute().map_err(|e| FlistError::Source(format!("{text:.128?}: {e}")))
    };
    if !specs.is_empty() {
        return specs.iter().map(|text| read(text)).collect();
    }
    match std::env::var("G8_FROM").ok().filter(|specs| !specs.is_empty()) {
        Some(specs) => specs.split(',').map(read).collect(),
        None => Ok(vec![default_store().ok_or(FlistError::Nowhere("store", "G8_FROM"))?]),
    }
}
