//! A fresh mount with an empty cache and a daemon of its own, which all go again.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use g8_fs::daemon::{Client, MountRequest, Reply, Request};
use g8_fs::engine::{MountStatus, mountpoint};
use g8_fs::source::Spec;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags};

use crate::cli::{BenchArgs, Global};
use crate::commands::mount;
use crate::defaults;
use crate::session::Wanted;

/// How long a daemon may take to answer, and to end.
const LIMIT: Duration = Duration::from_secs(20);

/// What one use of a mount took.
#[derive(Clone, Copy, Debug)]
pub struct Use {
    /// How long.
    pub time: Duration,
    /// Stored bytes that sources gave, metadata included.
    pub fetched: u64,
    /// Bytes of contents that the kernel got.
    pub read: u64,
    /// Read requests of the kernel.
    pub kernel_requests: u64,
    /// Requests to sources.
    pub source_requests: u64,
}

/// See the module's text.
pub struct Place {
    folder: Option<tempfile::TempDir>,
    client: Client,
    status: MountStatus,
    /// The mount lives as long as this connection.
    hold: Option<UnixStream>,
    /// How long it took to mount, the start of the daemon included.
    pub mounted_in: Duration,
    /// When mounting began.
    pub began: Instant,
}

impl Place {
    /// Mounts the image from one source alone.
    pub fn new(global: &Global, args: &BenchArgs, wanted: &Wanted, source: &Spec) -> anyhow::Result<Place> {
        // Beside the real cache: on the same file system.
        let cache = defaults::cache(global)?;
        let beside = cache.parent().unwrap_or(Path::new("/"));
        std::fs::create_dir_all(beside).with_context(|| format!("making {}", beside.display()))?;
        let folder = tempfile::Builder::new().prefix("flist-bench-").tempdir_in(beside);
        let folder = folder.with_context(|| format!("making a folder in {}", beside.display()))?;
        let (own_cache, at) = (folder.path().join("cache"), folder.path().join("mnt"));
        std::fs::create_dir(&at)?;
        let global = Global { cache: Some(own_cache.clone()), ..global.clone() };
        let alone = Wanted { sources: vec![source.clone()], ..wanted.clone() };
        if args.drop_caches {
            rustix::fs::sync();
            std::fs::write("/proc/sys/vm/drop_caches", "3").context("dropping the page cache")?;
        }
        let began = Instant::now();
        let request = mount::request(&global, &alone, &at, &args.options)?;
        let (status, hold) = mount::mount(
            &global,
            MountRequest { hold: true, allow_other: !args.command.is_empty(), ..request },
        )?;
        let client = Client::new(&own_cache, None);
        let mounted_in = began.elapsed();
        Ok(Place { folder: Some(folder), client, status, hold: Some(hold), mounted_in, began })
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.status.mountpoint
    }

    /// What the daemon said of the mount when it was made.
    pub fn status(&self) -> &MountStatus {
        &self.status
    }

    /// What the mount does while `work` runs; `since` is what it had done before.
    pub fn used(&self, began: Instant, since: &MountStatus) -> anyhow::Result<Use> {
        let time = began.elapsed();
        let now = self.now()?;
        let requests = |status: &MountStatus| status.sources.iter().map(|s| s.requests).sum::<u64>();
        if now.errors > since.errors {
            bail!("{} reads failed: see the log of the daemon with G8_LOG=info", now.errors - since.errors);
        }
        Ok(Use {
            time,
            fetched: now.bytes_fetched - since.bytes_fetched,
            read: now.bytes_read - since.bytes_read,
            kernel_requests: now.requests - since.requests,
            source_requests: requests(&now) - requests(since),
        })
    }

    /// What the mount has done so far.
    pub fn now(&self) -> anyhow::Result<MountStatus> {
        match self.client.ask(&Request::Mounts, LIMIT)? {
            (Reply::Mounts(list), _) => {
                let own = list.into_iter().find(|mount| mount.mountpoint == self.status.mountpoint);
                own.context("the mount is gone")
            }
            (other, _) => bail!("the daemon answered with {other:?}"),
        }
    }

    /// Ends mount and daemon, and removes the cache.
    pub fn end(mut self) -> anyhow::Result<()> {
        self.clear()
    }

    fn clear(&mut self) -> anyhow::Result<()> {
        let (Some(hold), Some(folder)) = (self.hold.take(), self.folder.take()) else { return Ok(()) };
        let daemon = Pid::from_raw(self.status.pid.cast_signed()).context("the daemon has no pid")?;
        // Opened while it lives for sure, so that it is no other process.
        let daemon =
            rustix::process::pidfd_open(daemon, PidfdFlags::empty()).context("watching the daemon")?;
        drop(hold);
        mountpoint::unmount(&self.status.mountpoint, true)?;
        // It writes to the folder until it has ended.
        let limit = Timespec { tv_sec: LIMIT.as_secs().cast_signed(), tv_nsec: 0 };
        if poll(&mut [PollFd::new(&daemon, PollFlags::IN)], Some(&limit)).context("waiting for the daemon")?
            == 0
        {
            bail!("the daemon of {} does not end", folder.path().display());
        }
        folder.close().context("removing the bench's folder")
    }
}

impl Drop for Place {
    /// A measurement failed: the same, and its error is the one to tell.
    fn drop(&mut self) {
        if let Err(error) = self.clear() {
            tracing::warn!(error = format!("{error:#}"), "the bench leaves something behind");
        }
    }
}
