//! Mounts of flists that containers share: one for each flist, however many use it.
//!
//! A mount stays for a while after its last user, so that the next one finds it. One whose daemon has died is replaced for
//! containers that come: those that have it keep it, and what they have not read yet is an error to them until they end.

use std::collections::HashMap;
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use g8_fs::engine::{MountError, MountStatus, mountpoint};
use g8_fs::format::RunConfig;
use g8_fs::names::Names;
use g8_fs::reference::{Reference, resolve};
use parking_lot::Mutex;

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
}

/// How many use a mount; held while it is made or ended.
type Users = Arc<tokio::sync::Mutex<usize>>;

/// The images of a node.
#[derive(Debug)]
pub struct Images {
    folder: PathBuf,
    users: Arc<Mutex<HashMap<String, Users>>>,
}

impl Images {
    pub fn new(folder: PathBuf) -> Self {
        Self { folder, users: Arc::default() }
    }

    /// Mounts an flist, or counts one more user of its mount. Those of privileged containers honour set-user-ID and devices.
    pub async fn take(&self, text: &str, sources: &[String], privileged: bool) -> Result<Image, ImageError> {
        let reference = text.to_owned();
        let follow = move || {
            let reference: Reference = reference.parse().map_err(FlistError::from)?;
            Ok(resolve(&reference, Names::of_user().as_ref()).map_err(FlistError::from)?)
        };
        let resolved = blocking(follow).await?;
        let cid = resolved.id.to_string();
        let key = if privileged { format!("{cid}-privileged") } else { cid.clone() };
        let path = self.folder.join(&key);
        let users = self.users(&key);
        let mut count = users.lock().await;
        let served = match *count > 0 || is_mounted(&path) {
            true => self.served(&path, &cid, *count).await?,
            false => None,
        };
        let status = match served {
            Some(status) => status,
            None => {
                let plan = Plan {
                    reference: text.to_owned(),
                    mountpoint: path.clone(),
                    sources: sources.to_vec(),
                    mode: None,
                    suid: privileged,
                    dev: privileged,
                };
                let folder = path.clone();
                blocking(move || mount(&folder, plan, &cid)).await?
            }
        };
        *count += 1;
        Ok(Image { key, path, config: status.config, arch: status.arch })
    }

    /// The mount at a place, if its daemon lives; what is left of one whose daemon does not is cleared by who mounts there.
    async fn served(&self, path: &Path, cid: &str, users: usize) -> Result<Option<MountStatus>, ImageError> {
        let at = path.to_owned();
        let asked = blocking(move || {
            // As the daemon knows it.
            let at = mountpoint::resolve(&at).map_err(|e| ImageError::Folder(at, e))?;
            match flist::info(&at) {
                Err(FlistError::Mount(MountError::NotMounted(_))) => Ok(None),
                asked => Ok(Some(asked?)),
            }
        });
        let status = asked.await?.filter(|status| status.reference == cid);
        if status.is_none() {
            tracing::warn!(
                flist = cid,
                containers = users,
                "the daemon that served an flist is gone: what its containers have not read yet is an error to them until \
                 they are made anew; others get a new mount"
            );
        }
        Ok(status)
    }

    /// Counts a user that is there from before.
    pub async fn keep(&self, key: &str) -> PathBuf {
        *self.users(key).lock().await += 1;
        self.folder.join(key)
    }

    /// One user less.
    pub async fn release(&self, key: &str) {
        let users = self.users(key);
        let mut count = users.lock().await;
        *count = count.saturating_sub(1);
        if *count > 0 {
            return;
        }
        let (path, users, all, key) =
            (self.folder.join(key), users.clone(), self.users.clone(), key.to_owned());
        tokio::spawn(async move {
            tokio::time::sleep(LINGER).await;
            let count = users.lock().await;
            if *count == 0 {
                unmount(path).await;
                let mut all = all.lock();
                // One in the table, one here: nobody waits for it.
                if Arc::strong_count(&users) == 2 {
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
            let users = self.users(&key);
            let count = users.lock().await;
            if *count == 0 {
                unmount(self.folder.join(&key)).await;
            }
        }
    }

    fn users(&self, key: &str) -> Users {
        self.users.lock().entry(key.to_owned()).or_default().clone()
    }
}

fn mount(folder: &Path, plan: Plan, cid: &str) -> Result<MountStatus, ImageError> {
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
            return Ok(status);
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
