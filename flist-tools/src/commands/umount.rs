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
    let own = mountpoint::own_mounts().context("reading the mount table")?;
    // A mountpoint that is a symlink is found by what it points to; a dead mount cannot be resolved.
    let resolved = if mountpoint::is_dead(&dir) { dir } else { dir.canonicalize().unwrap_or(dir) };
    let Some(mount) = own.iter().rev().find(|m| m.mountpoint == resolved) else {
        bail!("no flist is mounted on {}: `flist mounts` lists what is", args.dir.display());
    };
    let request = Request::Umount { mountpoint: mount.mountpoint.clone(), lazy: args.lazy };
    match Client::new(&mount.cache, None).ask(&request, LIMIT) {
        Ok((Reply::Done, _)) => Ok(()),
        Ok((other, _)) => bail!("the daemon answered an unmount with {other:?}"),
        Err(ClientError::NotRunning(_)) => {
            // Its daemon is gone: nothing but the entry in the mount table is left of it.
            Ok(mountpoint::unmount(&mount.mountpoint, true)?)
        }
        Err(e) => Err(e.into()),
    }
}
