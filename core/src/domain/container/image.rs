//! Mounts of flists that containers share: one for each flist, however many use it.
//!
//! A mount stays for a while after its last user, so that the next one finds it; what that one has other sources for is asked
//! there, too, after those that are asked already. The daemon that serves it is asked once, and
//! watched from then on ([`served`]). One that is lost with its daemon is replaced for containers that come: those that have it
//! keep it, and what they have not read yet is an error to them until they end.

mod served;

use std::collections::HashMap;
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use g8_fs::engine::{MountError, mountpoint};
use g8_fs::format::RunConfig;
use g8_fs::names::Names;
use g8_fs::reference::{Reference, Target, resolve};
use parking_lot::Mutex;
use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};
use tokio::time::Instant;

use self::served::{Found, Served};
use crate::domain::flist::{self, FlistError, Plan};

/// How long a mount stays without users.
const LINGER: Duration = Duration::from_secs(5);

/// Why an image is not there.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// A name that led to one flist, and a moment later to another.
    #[error("the name leads elsewhere now: try again")]
    Moved,
    /// It cannot be mounted.
    #[error(transparent)]
    Mount(#[from] FlistError),
    /// There is no place for it.
    #[error("no folder {0} to mount it on")]
    Folder(PathBuf, #[source] io::Error),
    /// A thread panicked.
    #[error("the mount was not finished")]
    Interrupted,
}

/// An image in use.
#[derive(Debug)]
pub struct Image {
    /// What it is released by.
    pub key: String,
    /// Where it is.
    pub path: PathBuf,
    /// What to run in it.
    pub config: RunConfig,
    /// What its programs are made for.
    pub arch: Option<String>,
    /// Its file system, by which a later mount at the same place is told apart.
    pub device: Device,
    /// Whether it still can be read.
    pub lost: Lost,
}

/// Number of a file system, which nobody else has while it is there.
pub type Device = (u32, u32);

/// Whether the daemon that served a mount is gone and none goes on with it, and what nobody has read of it is gone, too.
#[derive(Clone, Debug, Default)]
pub struct Lost(Arc<AtomicBool>);

impl Lost {
    /// Whether it is.
    pub fn is_lost(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A place for a mount, locked while it is made or ended.
type Shared = Arc<tokio::sync::Mutex<Mount>>;

/// A mount, and who uses it.
#[derive(Debug, Default)]
struct Mount {
    users: usize,
    /// None until its daemon was asked.
    served: Option<Served>,
}

/// The images of a node.
#[derive(Debug)]
pub struct Images {
    folder: PathBuf,
    mounts: Arc<Mutex<HashMap<String, Shared>>>,
}

impl Images {
    pub fn new(folder: PathBuf) -> Self {
        Self { folder, mounts: Arc::default() }
    }

    /// Mounts an flist from sources, or else from the node's own and those that it was told; or counts one more user of its
    /// mount, which asks these sources from then on. Those of privileged containers honour set-user-ID and devices.
    pub async fn take(
        &self,
        text: &str,
        [sources, told]: [&[String]; 2],
        privileged: bool,
    ) -> Result<Image, ImageError> {
        let cid = follow(text).await?;
        let key = if privileged { format!("{cid}-privileged") } else { cid.clone() };
        let path = self.folder.join(&key);
        let shared = self.mount(&key);
        let mut mount = shared.lock().await;
        let plan = Plan {
            reference: text.to_owned(),
            mountpoint: path.clone(),
            sources: sources.to_vec(),
            told: told.to_vec(),
            mode: None,
            suid: privileged,
            dev: privileged,
        };
        mount.heal(&path, &shared).await;
        if !mount.served.as_ref().is_some_and(|served| served.is_at(&path)) {
            let found = match mount.users > 0 || is_mounted(&path) {
                true => asked(&path, &cid).await?,
                false => None,
            };
            let found = match found {
                Some(found) => found,
                None => {
                    let (folder, plan) = (path.clone(), plan.clone());
                    blocking(move || make(&folder, plan, &cid)).await?
                }
            };
            mount.served = Some(Served::watched(found, &path, &shared)?);
        }
        // It was set above, where it was not.
        let served = mount.served.as_mut().ok_or(ImageError::Interrupted)?;
        if let Err(refused) = served.take_up(plan).await {
            if mount.users == 0 {
                self.linger(key, shared.clone());
            }
            return Err(refused);
        }
        let image = served.image(key, path);
        mount.users += 1;
        Ok(image)
    }

    /// Counts a user that is there from before, of the file system that it uses. Its daemon may answer until a time.
    pub async fn keep(&self, key: &str, device: Device, until: Instant) -> (PathBuf, Lost) {
        let path = self.folder.join(key);
        let shared = self.mount(key);
        let mut mount = shared.lock().await;
        mount.users += 1;
        if mount.served.is_none() {
            let cid = key.split('-').next().unwrap_or_default();
            if Instant::now() >= until {
                return (path, Lost::default());
            }
            match tokio::time::timeout_at(until, asked(&path, cid)).await {
                Ok(Ok(Some(found))) => mount.served = Served::watched(found, &path, &shared).ok(),
                Ok(Ok(None)) => {}
                // It may be well, and not be heard: its end is not watched then.
                Ok(Err(_)) | Err(_) => return (path, Lost::default()),
            }
        }
        match mount.served.as_ref().and_then(|served| served.lost(device)) {
            Some(lost) => (path, lost),
            None => {
                let lost = Lost::default();
                lost.set();
                (path, lost)
            }
        }
    }

    /// One user less.
    pub async fn release(&self, key: &str) {
        let shared = self.mount(key);
        let mut mount = shared.lock().await;
        mount.users = mount.users.saturating_sub(1);
        if mount.users == 0 {
            self.linger(key.to_owned(), shared.clone());
        }
    }

    /// Ends a mount after a while, if nobody uses it then.
    fn linger(&self, key: String, shared: Shared) {
        let (path, all) = (self.folder.join(&key), self.mounts.clone());
        tokio::spawn(async move {
            tokio::time::sleep(LINGER).await;
            let mut mount = shared.lock().await;
            if mount.users == 0 {
                mount.served = None;
                unmount(path).await;
                let mut all = all.lock();
                // One in the table, one here: nobody waits for it.
                if Arc::strong_count(&shared) == 2 {
                    all.remove(&key);
                }
            }
        });
    }

    /// Ends all mounts without users now, also those that are known from before.
    pub async fn clear(&self) {
        let entries = std::fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let keys: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        for key in keys {
            let shared = self.mount(&key);
            let mut mount = shared.lock().await;
            if mount.users == 0 {
                mount.served = None;
                unmount(self.folder.join(&key)).await;
            }
        }
    }

    fn mount(&self, key: &str) -> Shared {
        self.mounts.lock().entry(key.to_owned()).or_default().clone()
    }
}

/// The file system that is mounted at a path; none when it is no mount. Nobody who serves it is asked.
fn device_at(path: &Path) -> rustix::io::Result<Option<Device>> {
    let flags = AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT;
    let stat = statx(CWD, path, flags, StatxFlags::BASIC_STATS)?;
    let is_root = stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT);
    Ok(is_root.then_some((stat.stx_dev_major, stat.stx_dev_minor)))
}

/// The address that a reference leads to. Only names have to be looked up.
async fn follow(text: &str) -> Result<String, ImageError> {
    let reference: Reference = text.parse().map_err(FlistError::from)?;
    if let Target::Cid(id) = &reference.target {
        return Ok(id.to_string());
    }
    let resolved =
        blocking(move || Ok(resolve(&reference, Names::of_user().as_ref()).map_err(FlistError::from)?));
    Ok(resolved.await?.id.to_string())
}

/// The mount at a place, if its daemon lives; what is left of one whose daemon does not is cleared by who mounts there.
async fn asked(path: &Path, cid: &str) -> Result<Option<Found>, ImageError> {
    let at = path.to_owned();
    let asked = blocking(move || {
        // As the daemon knows it.
        let at = mountpoint::resolve(&at).map_err(|e| ImageError::Folder(at, e))?;
        match flist::info(&at) {
            Err(FlistError::Mount(MountError::NotMounted(_))) => Ok(None),
            asked => Ok(Some(Found::new(asked?))),
        }
    });
    Ok(asked.await?.filter(|found| found.is_of(cid)))
}

fn make(folder: &Path, plan: Plan, cid: &str) -> Result<Found, ImageError> {
    let mut make = DirBuilder::new();
    // Nobody but root comes near images that may have set-user-ID in them.
    make.recursive(true).mode(0o700);
    match make.create(folder) {
        // A dead mount lies there, which the daemon clears.
        Err(e) if e.raw_os_error() != Some(libc::ENOTCONN) => {
            return Err(ImageError::Folder(folder.into(), e));
        }
        _ => {}
    }
    let mounted = flist::mount(plan).map_err(ImageError::from).and_then(|status| {
        if status.reference == cid {
            return Ok(Found::new(status));
        }
        flist::unmount(folder, true)?;
        Err(ImageError::Moved)
    });
    if mounted.is_err() {
        // Empty, or something is wrong that shows when it is used again.
        let _ = std::fs::remove_dir(folder);
    }
    mounted
}

/// Containers that still end may use it: it is detached from its place, and ends after them.
async fn unmount(path: PathBuf) {
    let done = blocking(move || {
        if is_mounted(&path) {
            flist::unmount(&path, true)?;
        }
        match std::fs::remove_dir(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(ImageError::Folder(path, e)),
            _ => Ok(()),
        }
    });
    if let Err(e) = done.await {
        tracing::warn!("an image stays mounted: {e}");
    }
}

fn is_mounted(path: &Path) -> bool {
    mountpoint::own_mount_at(path).is_ok()
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ImageError> + Send + 'static,
) -> Result<T, ImageError> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(ImageError::Interrupted))
}
