//! Mounts of flists that containers share: one for each flist, however many use it.
//!
//! A mount stays for a while after its last user, so that the next one finds it; what that one has other sources for is asked
//! there, too, after those that are asked already, as far as a list goes. The daemon that serves it is asked once, and
//! watched from then on ([`served`]). One that is lost with its daemon is replaced for containers that come: those that have it
//! keep it, and what they have not read yet is an error to them until they end.

mod served;

use std::collections::HashMap;
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use g8_fs::engine::{MountError, mountpoint};
use g8_fs::format::RunConfig;
use g8_fs::names::Names;
use g8_fs::reference::{Reference, Target, resolve};
use parking_lot::Mutex;
use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};
use tokio::time::Instant;

use self::served::{Added, Asked, Found, Served};
use crate::domain::flist::{self, FlistError, Plan};

/// How long a mount stays without users.
const LINGER: Duration = Duration::from_secs(5);
/// How long who wants a mount waits for others that make, mend or end it.
const TURN: Duration = Duration::from_secs(60);
/// Pauses before a daemon that did not answer is asked again.
const PAUSE: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(30);

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
    /// One that comes first takes too long.
    #[error(
        "its mount is being made, mended or ended for {TURN:?}: a source or the daemon of the flists hangs; try again"
    )]
    Busy,
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

/// A place for a mount.
type Shared = Arc<Place>;

/// A mount, and who uses it.
#[derive(Debug, Default)]
struct Place {
    /// One more only by who has the lock; one less by anybody, at once.
    users: AtomicUsize,
    /// Locked while it is made, mended or ended.
    mount: tokio::sync::Mutex<Mount>,
}

impl Place {
    fn has_users(&self) -> bool {
        self.users.load(Ordering::Relaxed) > 0
    }

    /// Whether the last one is gone now.
    fn leave(&self) -> bool {
        let one_less = |users: usize| users.checked_sub(1);
        self.users.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok_and(|users| users == 1)
    }
}

#[derive(Debug, Default)]
struct Mount {
    /// None until its daemon was asked.
    served: Option<Served>,
    /// What became of the file systems that containers of an earlier manager use, for as long as no daemon has said.
    unheard: HashMap<Device, Lost>,
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
        let plan = Plan {
            reference: text.to_owned(),
            mountpoint: self.folder.join(&key),
            sources: sources.to_vec(),
            told: told.to_vec(),
            mode: None,
            suid: privileged,
            dev: privileged,
        };
        let shared = self.mount(&key);
        let taken = self.take_at(plan, &cid, &key, &shared).await;
        if taken.is_err() {
            self.let_go(&key, shared);
        }
        taken
    }

    /// The same of a place that is known. Its lock is not held while sources are added: others come and go meanwhile.
    async fn take_at(&self, plan: Plan, cid: &str, key: &str, shared: &Shared) -> Result<Image, ImageError> {
        let mut tries = 2;
        loop {
            tries -= 1;
            let (image, asked) = self.count(plan.clone(), cid, key, shared).await?;
            let added = match Added::to(plan.clone(), asked.sources).await {
                Ok(None) => return Ok(image),
                added => added,
            };
            // While the user counts: without one it may end in order.
            let mut mount = locked(shared).await;
            let served = mount.as_mut().ok().and_then(|mount| mount.served.as_mut());
            // The daemon that was told, or could not be, may be no more.
            let is_past = served.as_ref().is_some_and(|served| !served.is_still_by(asked.daemon));
            let done = match (added, served) {
                (Ok(Some(added)), Some(served)) => {
                    served.keep(added, image.device);
                    Ok(image)
                }
                (Ok(_), _) => Ok(image),
                (Err(refused), _) => Err(refused),
            };
            drop(mount);
            if is_past && tries > 0 {
                self.release(key);
                continue;
            }
            return done.inspect_err(|_| self.release(key));
        }
    }

    /// Counts one more user of a mount, which is made when it is not there. Gives also what is known of whom it asks.
    async fn count(
        &self,
        plan: Plan,
        cid: &str,
        key: &str,
        shared: &Shared,
    ) -> Result<(Image, Asked), ImageError> {
        let path = plan.mountpoint.clone();
        let mut mount = locked(shared).await?;
        mount.heal(&path, shared).await;
        if !mount.served.as_ref().is_some_and(|served| served.is_at(&path)) {
            let found = match shared.has_users() || is_mounted(&path) {
                true => asked(&path, cid).await?,
                false => None,
            };
            let found = match found {
                Some(found) => found,
                None => {
                    let (folder, cid) = (path.clone(), cid.to_owned());
                    blocking(move || make(&folder, plan, &cid)).await?
                }
            };
            mount.told(found, &path, shared)?;
        }
        // It was set above, where it was not.
        let served = mount.served.as_ref().ok_or(ImageError::Interrupted)?;
        shared.users.fetch_add(1, Ordering::Relaxed);
        Ok((served.image(key.to_owned(), path), served.asked()))
    }

    /// What came to nothing: a place that nobody uses goes, and what may be mounted there.
    fn let_go(&self, key: &str, shared: Shared) {
        let (path, all, key) = (self.folder.join(key), self.mounts.clone(), key.to_owned());
        tokio::spawn(async move {
            let mount = shared.mount.lock().await;
            if shared.has_users() || mount.served.is_some() {
                return;
            }
            unmount(path).await;
            forget(&all, &key, &shared);
        });
    }

    /// Counts a user that is there from before, of the file system that it uses. Its daemon may answer until a time; after that it
    /// is asked on behind the back of all.
    pub async fn keep(&self, key: &str, device: Device, until: Instant) -> (PathBuf, Lost) {
        let path = self.folder.join(key);
        let shared = self.mount(key);
        let mut mount = shared.mount.lock().await;
        shared.users.fetch_add(1, Ordering::Relaxed);
        if mount.served.is_none() {
            let answer = match mount.unheard.is_empty() && Instant::now() < until {
                true => tokio::time::timeout_at(until, asked(&path, cid_of(key))).await.ok(),
                false => None,
            };
            let is_heard = match answer {
                Some(Ok(Some(found))) => mount.told(found, &path, &shared).is_ok(),
                Some(Ok(None)) => true,
                Some(Err(_)) | None => false,
            };
            if !is_heard {
                if mount.unheard.is_empty() {
                    tokio::spawn(hear(key.to_owned(), path.clone(), Arc::downgrade(&shared)));
                }
                return (path, mount.unheard.entry(device).or_default().clone());
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

    /// One user less. Nobody waits for it.
    pub fn release(&self, key: &str) {
        let shared = self.mount(key);
        if shared.leave() {
            self.linger(key.to_owned(), shared);
        }
    }

    /// Ends a mount after a while, if nobody uses it then.
    fn linger(&self, key: String, shared: Shared) {
        let (path, all) = (self.folder.join(&key), self.mounts.clone());
        tokio::spawn(async move {
            tokio::time::sleep(LINGER).await;
            let mut mount = shared.mount.lock().await;
            if !shared.has_users() {
                *mount = Mount::default();
                unmount(path).await;
                forget(&all, &key, &shared);
            }
        });
    }

    /// Ends all mounts without users now, also those that are known from before.
    pub async fn clear(&self) {
        let entries = std::fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let keys: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        for key in keys {
            let shared = self.mount(&key);
            let mut mount = shared.mount.lock().await;
            if !shared.has_users() {
                *mount = Mount::default();
                unmount(self.folder.join(&key)).await;
            }
        }
    }

    fn mount(&self, key: &str) -> Shared {
        self.mounts.lock().entry(key.to_owned()).or_default().clone()
    }
}

impl Mount {
    /// Its daemon has told of it. Who waited to hear learns what became of the file system that it has.
    fn told(&mut self, found: Found, path: &Path, of: &Shared) -> Result<(), ImageError> {
        let mut served = Served::watched(found, path, of)?;
        served.tell(&mut self.unheard);
        self.served = Some(served);
        self.none_else(path);
        Ok(())
    }

    /// What no daemon told of is lost.
    fn none_else(&mut self, path: &Path) {
        for (_, lost) in self.unheard.drain() {
            lost.set();
            let flist = path.file_name().unwrap_or_default().to_string_lossy();
            tracing::error!(
                %flist,
                "what containers of an earlier manager have not read yet of an flist is lost: make them anew"
            );
        }
    }
}

/// Asks on for the daemon of a mount that did not answer in time, as long as somebody uses that.
async fn hear(key: String, path: PathBuf, of: Weak<Place>) {
    tracing::warn!(
        flist = key,
        "the daemon that serves an flist does not answer: it is asked on, and if it dies before that its mount is lost"
    );
    let mut pause = PAUSE;
    loop {
        let answer = asked(&path, cid_of(&key)).await;
        let Some(shared) = of.upgrade() else { return };
        let mut mount = shared.mount.lock().await;
        // Somebody else has heard, or nobody wants to any more.
        if mount.unheard.is_empty() || !shared.has_users() {
            return;
        }
        let error = match answer {
            Ok(Some(found)) => mount.told(found, &path, &shared).err(),
            Ok(None) => return mount.none_else(&path),
            Err(error) => Some(error),
        };
        let Some(error) = error else {
            return tracing::info!(flist = key, "the daemon that serves an flist has answered");
        };
        drop(mount);
        drop(shared);
        tracing::debug!(flist = key, %error, "the daemon that serves an flist does not answer yet");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// The address of what is mounted at a place with this name.
fn cid_of(key: &str) -> &str {
    key.split('-').next().unwrap_or_default()
}

/// A mount, once nobody else makes, mends or ends it.
async fn locked(shared: &Shared) -> Result<tokio::sync::MutexGuard<'_, Mount>, ImageError> {
    tokio::time::timeout(TURN, shared.mount.lock()).await.map_err(|_| ImageError::Busy)
}

/// Takes a place out of the table, unless somebody waits for it.
fn forget(all: &Mutex<HashMap<String, Shared>>, key: &str, shared: &Shared) {
    let mut all = all.lock();
    // One in the table, one in the hand of who asks.
    if Arc::strong_count(shared) == 2 {
        all.remove(key);
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
