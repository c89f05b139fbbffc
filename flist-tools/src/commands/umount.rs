//! `flist umount DIR`: end a mount, through its daemon when that lives.

use std::time::Duration;

use anyhow::{Context, bail};
use g8_fs::daemon::{Client, ClientError, Reply, Request};
use g8_fs::engine::mountpoint;

use crate::cli::{Global, UmountArgs};

/// The daemon waits for the session to end, no longer than this.
const LIMIT: Duration = Duration::from_secs(20);

pub fn run(_: &Global, args: &UmountArgs) -> anyhow::Result<()> {
    let dir = mountpoint::resolve(&args.dir).with_context(|| args.dir.display().to_string())?;
    // A mountpoint that is a symlink is found by what it points to; a dead mount cannot be resolved.
    let dead = mountpoint::is_dead(&dir);
    let resolved = if dead { dir } else { dir.canonicalize().unwrap_or(dir) };
    let mount = mountpoint::own_mount_at(&resolved)?;
    let request = Request::Umount { mountpoint: mount.mountpoint.clone(), lazy: args.lazy };
    match Client::new(&mount.cache, None).owned_by(mount.owner).ask(&request, LIMIT) {
        Ok((Reply::Done, _)) => {}
        Ok((other, _)) => bail!("the daemon answered an unmount with {other:?}"),
        // Nobody serves it: nothing but the entry in the mount table is left.
        Err(ClientError::NotRunning(_) | ClientError::Refused(_)) if dead => {
            mountpoint::unmount(&mount.mountpoint, true)?;
        }
        Err(ClientError::NotRunning(_)) => mountpoint::unmount(&mount.mountpoint, true)?,
        Err(e) => return Err(e.into()),
    }
    if mountpoint::is_mounted(&mount).context("reading the mount table")? {
        bail!("{} is still mounted although its daemon says otherwise", args.dir.display());
    }
    Ok(())
}
