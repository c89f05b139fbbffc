//! A mount whose daemon is watched: when that dies, another one goes on with it, and what reads it waits meanwhile.
//!
//! What makes that possible is kept here ([`Keepsake`]), for as long as the manager lives. It is given up when the next daemons
//! die too, or cannot be had: then the mount is [`Lost`].

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use g8_fs::daemon::Keepsake;
use g8_fs::engine::{MountError, MountStatus};
use g8_fs::format::RunConfig;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::task::AbortHandle;

use super::{Device, Image, ImageError, Lost, Mount, Place, Shared, blocking, device_at};
use crate::domain::flist::{self, FlistError, Plan};
use crate::process;

/// How many daemons of a mount may die within so long. What kills one may be what is read, and kill the next.
const DEATHS: usize = 3;
const WITHIN: Duration = Duration::from_secs(60);

/// A mount of which its daemon has told.
pub(super) struct Found {
    status: MountStatus,
    kept: Option<Keepsake>,
}

impl Found {
    /// What keeps it is asked for, too. Without that it can be used, and not be healed.
    pub(super) fn new(status: MountStatus) -> Self {
        let kept = kept(&status.mountpoint).map(|(_, kept)| kept);
        Self { status, kept }
    }

    pub(super) fn is_of(&self, cid: &str) -> bool {
        self.status.reference == cid
    }
}

/// What is known of whom a mount asks.
pub(super) struct Asked {
    /// The names of its sources.
    pub(super) sources: Vec<String>,
    /// The daemon that asks them, which no other one is like.
    pub(super) daemon: Instant,
}

/// Sources that a mount asks for one more user.
pub(super) struct Added {
    /// When all of them were there.
    since: Instant,
    sources: Vec<String>,
    kept: Option<Keepsake>,
}

impl Added {
    /// Has a mount ask what it is not known to ask. Those with the name of one that it asks are taken to be that one. None when
    /// nothing is missing.
    pub(super) async fn to(plan: Plan, known: Vec<String>) -> Result<Option<Self>, ImageError> {
        let added = blocking(move || {
            let Some(sources) = flist::add_sources(&plan, &known)? else { return Ok(None) };
            let since = Instant::now();
            Ok(Some(match kept(&plan.mountpoint) {
                Some((status, kept)) => Self { since, sources: names(status), kept: Some(kept) },
                None => Self { since, sources, kept: None },
            }))
        });
        added.await
    }
}

/// What keeps a mount that its daemon serves.
fn kept(mountpoint: &Path) -> Option<(MountStatus, Keepsake)> {
    match flist::keep(mountpoint) {
        Ok(kept) => Some(kept),
        Err(error) => {
            let mountpoint = mountpoint.display();
            tracing::warn!(%mountpoint, %error, "a mount would end with its daemon, or lose sources");
            None
        }
    }
}

/// Of the sources that it asks.
fn names(status: MountStatus) -> Vec<String> {
    status.sources.into_iter().map(|source| source.spec.to_string()).collect()
}

/// Why a mount whose daemon died is lost.
#[derive(Debug, thiserror::Error)]
enum LostError {
    #[error("the daemon did not give what it takes")]
    NotKept,
    #[error("it is not mounted any more")]
    Unmounted,
    #[error("{DEATHS} daemons died within {WITHIN:?}: see daemon.log in the folder of the cache")]
    Again,
    #[error(transparent)]
    Image(#[from] ImageError),
    #[error("the next daemon cannot be watched")]
    Watch(#[source] io::Error),
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct Served {
    config: RunConfig,
    arch: Option<String>,
    /// The names of the sources that it is known to ask.
    sources: Vec<String>,
    /// When that was told.
    since: Instant,
    device: Device,
    lost: Lost,
    kept: Option<Arc<Keepsake>>,
    /// When daemons of it have died lately.
    deaths: Vec<Instant>,
    daemon: Daemon,
}

/// Its process.
#[derive(Debug)]
struct Daemon {
    /// A pidfd.
    end: OwnedFd,
    /// When it was known first.
    since: Instant,
    watch: AbortHandle,
}

impl Served {
    /// Watches the daemon that has told of a mount. `of` is who uses it.
    pub(super) fn watched(found: Found, path: &Path, of: &Shared) -> Result<Self, ImageError> {
        let Found { status, kept } = found;
        let failed = |error: io::Error| ImageError::Folder(path.to_owned(), error);
        let daemon = Daemon::watched(&status, path, of).map_err(failed)?;
        // After the daemon is held: what is at the place is what it serves, or is told as lost at once.
        let device = device_at(path).map_err(|errno| failed(errno.into()))?;
        let device = device.ok_or_else(|| FlistError::from(MountError::NotMounted(path.to_owned())))?;
        let (config, arch, since) = (status.config.clone(), status.arch.clone(), Instant::now());
        let (sources, lost, kept) = (names(status), Lost::default(), kept.map(Arc::new));
        Ok(Self { config, arch, sources, since, device, lost, kept, deaths: Vec::new(), daemon })
    }

    pub(super) fn asked(&self) -> Asked {
        Asked { sources: self.sources.clone(), daemon: self.daemon.since }
    }

    /// What it asks since sources were added, if that was to this file system. Of what was told at once the latest holds.
    pub(super) fn keep(&mut self, added: Added, device: Device) {
        if self.device != device || added.since < self.since {
            return;
        }
        self.since = added.since;
        self.sources = added.sources;
        // The next daemon shall ask them, too.
        self.kept = added.kept.map(Arc::new).or(self.kept.take());
    }

    /// Whether it is served by this daemon, which lives.
    pub(super) fn is_still_by(&self, daemon: Instant) -> bool {
        self.daemon.since == daemon && !self.daemon.has_ended()
    }

    /// Tells those that waited for news of its file system by what they look at.
    pub(super) fn tell(&mut self, unheard: &mut HashMap<Device, Lost>) {
        if let Some(lost) = unheard.remove(&self.device) {
            self.lost = lost;
        }
    }

    /// Whether it is what is mounted there, and can be read.
    pub(super) fn is_at(&self, path: &Path) -> bool {
        !self.daemon.has_ended() && device_at(path).is_ok_and(|device| device == Some(self.device))
    }

    /// Whether it can still be read, when it is this file system.
    pub(super) fn lost(&self, device: Device) -> Option<Lost> {
        (self.device == device).then(|| self.lost.clone())
    }

    pub(super) fn image(&self, key: String, path: PathBuf) -> Image {
        let Self { config, arch, device, lost, .. } = self;
        Image { key, path, config: config.clone(), arch: arch.clone(), device: *device, lost: lost.clone() }
    }

    /// Has another daemon go on with it.
    async fn resume(&mut self, path: &Path, of: &Shared) -> Result<(), LostError> {
        let kept = self.kept.clone().ok_or(LostError::NotKept)?;
        if device_at(path).ok().flatten() != Some(self.device) {
            return Err(LostError::Unmounted);
        }
        self.deaths.retain(|death| death.elapsed() < WITHIN);
        self.deaths.push(Instant::now());
        if self.deaths.len() >= DEATHS {
            return Err(LostError::Again);
        }
        let status = blocking(move || Ok(flist::resume(&kept)?)).await?;
        self.daemon = Daemon::watched(&status, path, of).map_err(LostError::Watch)?;
        // Not all may be there that were added, or can be opened still.
        (self.sources, self.since) = (names(status), Instant::now());
        Ok(())
    }
}

impl Mount {
    /// Has another daemon go on with it if its own has died. What nobody goes on with is lost: its reads fail.
    pub(super) async fn heal(&mut self, path: &Path, of: &Shared) {
        let containers = of.users.load(Ordering::Relaxed);
        let Some(served) = &mut self.served else { return };
        if !served.daemon.has_ended() || served.lost.is_lost() {
            return;
        }
        let flist = path.file_name().unwrap_or_default().to_string_lossy();
        match served.resume(path, of).await {
            Ok(()) => tracing::warn!(
                %flist,
                containers,
                "the daemon that served an flist died: another one goes on with it, and its containers have waited"
            ),
            Err(error) => {
                served.lost.set();
                served.kept = None;
                if containers > 0 {
                    let error: &dyn std::error::Error = &error;
                    tracing::error!(
                        %flist,
                        containers,
                        error,
                        "the daemon that served an flist died, and none goes on with it: what its containers have not read \
                         yet is an error to them (ENOTCONN or EIO), until they are made anew; containers that come get a \
                         new mount"
                    );
                }
            }
        }
    }
}

impl Daemon {
    fn watched(status: &MountStatus, path: &Path, of: &Shared) -> io::Result<Self> {
        let pid = i32::try_from(status.pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidData)?;
        let end = pidfd_open(pid, PidfdFlags::NONBLOCK)?;
        let watch = tokio::spawn(watch(end.try_clone()?, path.to_owned(), Arc::downgrade(of)));
        Ok(Self { end, since: Instant::now(), watch: watch.abort_handle() })
    }

    /// Whether it has; whoever watches may not have been told yet.
    fn has_ended(&self) -> bool {
        let mut end = [PollFd::new(&self.end, PollFlags::IN)];
        poll(&mut end, Some(&Timespec::default())).is_ok_and(|ended| ended > 0)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // One that has seen the end has still to see to it.
        if !self.has_ended() {
            self.watch.abort();
        }
    }
}

/// Waits for the end of a daemon, and sees to the mount.
async fn watch(end: OwnedFd, path: PathBuf, of: Weak<Place>) {
    let waited = match process::watch(end) {
        Ok(end) => end.readable().await.map(drop),
        Err(error) => Err(error),
    };
    if let Err(error) = waited {
        tracing::error!(path = %path.display(), %error, "the end of the daemon that serves an flist will not be noticed");
        return;
    }
    if let Some(of) = of.upgrade() {
        of.mount.lock().await.heal(&path, &of).await;
    }
}
