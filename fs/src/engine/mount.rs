//! One mount: the session that serves it, where it is seen, what it has done.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, bounded};
use fuser::Session;
use g8_cache::{Cache, Sources};
use parking_lot::{Mutex, MutexGuard};

use super::devices::Connection;
use super::error::MountError;
use super::kernel_mode::{self, Kernel};
use super::mountpoint::{Location, OwnMount};
use super::spec::{Hits, Mode, MountSpec, MountStatus};
use super::{fuse_mode, probe};
use crate::filesystem::Filesystem;
use crate::image::Image;
use crate::replay::Replay;
use crate::source::{SourceOptions, Spec};

/// What a mount is made of, and where.
pub(super) struct Parts<'a> {
    pub spec: &'a MountSpec,
    pub mountpoint: &'a Path,
    pub image: Arc<Image>,
    pub cache: Cache,
    pub sources: Sources,
    pub cache_dir: &'a Path,
    pub runtime: &'a tokio::runtime::Handle,
    pub replay: Option<Arc<Replay>>,
}

impl Parts<'_> {
    pub(super) fn failed(&self, action: &'static str) -> impl FnOnce(io::Error) -> MountError {
        MountError::io(action, self.mountpoint)
    }

    /// The file system, each of whose requests gets one of `tries` equal parts of the deadline: the kernel asks again
    /// when a read-ahead fails, before the reader sees the error.
    pub(super) fn filesystem(&self, tries: u32) -> Arc<Filesystem> {
        let deadline = self.spec.deadline / tries;
        let fs = Filesystem::new(self.image.clone(), self.cache.clone(), self.sources.clone(), deadline);
        let fs = if self.spec.record { fs.recording() } else { fs };
        Arc::new(match &self.replay {
            Some(replay) => fs.following(replay.clone()),
            None => fs,
        })
    }
}

/// A mount that answers the kernel.
pub(super) struct Made {
    pub location: Location,
    pub fs: Arc<Filesystem>,
    pub session: Serving,
    /// In mode `kernel`, what its unmount may have to be helped with.
    pub kernel: Option<Kernel>,
}

/// A mount that is served. Its device is its identity: paths come and go, and others may mount over them.
pub(super) struct Mount {
    made: Made,
    reference: String,
    spec: MountSpec,
    /// The sources as they were asked for, and those that were added and removed since.
    asked: Mutex<Vec<Spec>>,
    fallback: Option<String>,
    open_ms: f64,
    mount_ms: f64,
}

impl Mount {
    /// Mounts on `directory` in the mode that was asked for, or in the one that works. `opened_in` is what the image took to
    /// open.
    pub(super) fn start(
        parts: &Parts<'_>,
        directory: &OwnedFd,
        opened_in: Duration,
        probe: &probe::Probe,
    ) -> Result<Mount, MountError> {
        let began = Instant::now();
        let (made, fallback) = match parts.spec.mode {
            Mode::Fuse => (fuse_mode::start(parts, directory)?, None),
            Mode::Kernel => (kernel_mode::start(parts, directory)?, None),
            Mode::Auto => match probe.verdict().and_then(|()| {
                kernel_mode::start(parts, directory).map_err(|e| probe::Unfit::Refused(e.to_string()))
            }) {
                Ok(made) => (made, None),
                Err(unfit) => {
                    tracing::info!(reason = %unfit, "mode fuse instead of kernel");
                    (fuse_mode::start(parts, directory)?, Some(unfit.to_string()))
                }
            },
        };
        Ok(Self::of(parts, made, fallback, [opened_in, began.elapsed()]))
    }

    /// Goes on with a mount that is there, over the kernel's end of its connection.
    pub(super) fn resume(
        parts: &Parts<'_>,
        opened_in: Duration,
        own: &OwnMount,
        device: OwnedFd,
    ) -> Result<Mount, MountError> {
        let began = Instant::now();
        let made = match own.mode {
            Mode::Kernel => kernel_mode::resume(parts, device, own.location())?,
            Mode::Fuse | Mode::Auto => fuse_mode::resume(parts, device, own.location())?,
        };
        Ok(Self::of(parts, made, None, [opened_in, began.elapsed()]))
    }

    fn of(parts: &Parts<'_>, made: Made, fallback: Option<String>, took: [Duration; 2]) -> Mount {
        let [open_ms, mount_ms] = took.map(|time| time.as_secs_f64() * 1e3);
        let (reference, spec) = (parts.image.id.to_string(), parts.spec.clone());
        let asked = Mutex::new(spec.sources.clone());
        Mount { made, reference, spec, asked, fallback, open_ms, mount_ms }
    }

    /// The kernel's end of its FUSE connection.
    pub(super) fn device(&self) -> io::Result<OwnedFd> {
        self.made.session.device.try_clone()
    }

    pub(super) fn location(&self) -> &Location {
        &self.made.location
    }

    /// What is mounted.
    pub(super) fn image(&self) -> &Image {
        self.made.fs.image()
    }

    /// Where its blocks come from.
    pub(super) fn sources(&self) -> &Sources {
        self.made.fs.sources()
    }

    /// The blocks that were read so far, if they are recorded.
    pub(super) fn recorded(&self) -> Option<Vec<u32>> {
        self.made.fs.recorded()
    }

    /// How they are treated.
    pub(super) fn source_options(&self) -> SourceOptions {
        self.spec.source_options
    }

    /// As it was asked for, with the sources of now.
    pub(super) fn spec(&self) -> MountSpec {
        MountSpec { sources: self.asked.lock().clone(), ..self.spec.clone() }
    }

    /// The specs of its sources.
    pub(super) fn asked(&self) -> MutexGuard<'_, Vec<Spec>> {
        self.asked.lock()
    }

    fn mode(&self) -> Mode {
        if self.made.kernel.is_some() { Mode::Kernel } else { Mode::Fuse }
    }

    /// Has `ended` called when the session is over, perhaps at once: somebody has unmounted it, or it broke, and then
    /// what is left of it has been detached.
    pub(super) fn on_end(&self, ended: impl FnOnce() + Send + 'static) {
        let location = self.made.location.clone();
        let kernel = self.made.kernel.clone();
        let replay = self.made.fs.replay().cloned();
        self.made.session.then(move || {
            // Reads that still wait hold the file system, and nobody waits for these.
            if let Some(replay) = replay {
                replay.stop();
            }
            match kernel {
                Some(kernel) => kernel.detach_remains(&location),
                None => fuse_mode::detach(&location),
            }
            ended();
        });
    }

    /// Unmounts it at `path`. Where that would wait for a request that nobody answers, the requests are ended.
    pub(super) fn unmount(&self, path: &Path, lazy: bool) -> Result<(), MountError> {
        match &self.made.kernel {
            Some(kernel) => kernel.unmount(&self.made.location, path, lazy),
            None => self.made.location.unmount(path, lazy),
        }
    }

    /// Unmounts it wherever it is seen: properly where that works, else by detaching it.
    pub(super) fn end(&self) {
        for path in self.made.location.everywhere().unwrap_or_default() {
            if self.unmount(&path, false).is_err()
                && let Err(error) = self.unmount(&path, true)
            {
                tracing::error!(mountpoint = %path.display(), %error, "not unmounted");
            }
        }
    }

    pub(super) fn status(&self, cache: &Path) -> MountStatus {
        let fs = &self.made.fs;
        let counters = fs.counters();
        let sources = fs.sources().snapshot();
        MountStatus {
            pid: std::process::id(),
            reference: self.reference.clone(),
            config: fs.image().root.config.clone(),
            arch: fs.image().root.arch.clone(),
            mountpoint: self.made.location.mountpoint.clone(),
            mode: self.mode(),
            fallback: self.fallback.clone(),
            open_ms: self.open_ms,
            mount_ms: self.mount_ms,
            cache: cache.to_owned(),
            bytes_read: counters.bytes_read.load(Ordering::Relaxed),
            bytes_fetched: sources.iter().map(|s| s.bytes).sum(),
            requests: counters.requests.load(Ordering::Relaxed),
            errors: counters.errors.load(Ordering::Relaxed),
            last_error: fs.last_logged().map(|id| id.to_string()),
            hits: Hits {
                memory: counters.memory_hits.load(Ordering::Relaxed),
                disk: counters.disk_hits.load(Ordering::Relaxed),
            },
            sources,
            profile: fs.replay().map(|replay| replay.status()),
        }
    }
}

/// A session on threads of its own.
pub(super) struct Serving {
    after: Sender<Box<dyn FnOnce() + Send>>,
    device: OwnedFd,
}

impl Serving {
    /// Answers the kernel from here on.
    pub(super) fn run<F: fuser::Filesystem>(
        session: Session<F>,
        connection: Connection,
    ) -> io::Result<Serving> {
        let device = session.as_fd().try_clone_to_owned()?;
        let (after, told) = bounded::<Box<dyn FnOnce() + Send>>(1);
        std::thread::Builder::new().name("g8-session".into()).spawn(move || {
            match session.run() {
                Ok(()) => {}
                // The kernel had a last request in hand as it closed the connection.
                Err(error) if error.raw_os_error() == Some(libc::ECONNABORTED) => {}
                Err(error) => {
                    tracing::error!(%error, "a FUSE session broke");
                    // Whoever else has the device open would have its readers wait for ever.
                    if let Err(error) = connection.abort() {
                        tracing::error!(%error, "the FUSE connection is not ended");
                    }
                }
            }
            // Nobody says what comes after when the mount was not finished.
            if let Ok(after) = told.recv() {
                after();
            }
        })?;
        Ok(Serving { after, device })
    }

    /// What to do when the session is over. Said once.
    fn then(&self, work: impl FnOnce() + Send + 'static) {
        if self.after.try_send(Box::new(work)).is_err() {
            tracing::error!("somebody else waits for the end of a session already");
        }
    }
}
