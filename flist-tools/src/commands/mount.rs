//! `flist mount REF DIR`: have the daemon of the cache mount an flist, starting it when there is none.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::bail;
use g8_fs::daemon::{Client, MountRequest, Reply, Request, Starter};
use g8_fs::engine::MountStatus;

use crate::cli::{Global, MountArgs, MountOptions};
use crate::session::{Wanted, wanted};
use crate::{defaults, output};

pub fn run(global: &Global, args: &MountArgs) -> anyhow::Result<()> {
    let wanted = wanted(global, &args.reference)?;
    let request = request(global, &wanted, &args.dir, &args.options)?;
    let (status, _) = mount(global, MountRequest { allow_other: args.allow_other, ..request })?;
    if global.json {
        return output::json(&status);
    }
    match &status.fallback {
        Some(why) if rustix::process::geteuid().is_root() => {
            output::warn(format_args!("mounted in mode fuse, which is slower: {why}"));
        }
        Some(_) | None => tracing::info!(mode = %status.mode, "mounted"),
    }
    Ok(())
}

/// A request to mount what is wanted on `dir` that others may not use.
pub fn request(
    global: &Global,
    wanted: &Wanted,
    dir: &Path,
    options: &MountOptions,
) -> anyhow::Result<MountRequest> {
    if dir.to_str().is_none() {
        bail!("mountpoint {} is not UTF-8: choose another directory", dir.display());
    }
    Ok(MountRequest {
        reference: wanted.id.to_string(),
        mountpoint: std::path::absolute(dir)?,
        sources: wanted.sources.clone(),
        cache_local: options.cache_local,
        mode: options.mode.into(),
        suid: options.suid,
        dev: options.dev,
        allow_other: false,
        deadline_ms: global.deadline().as_millis() as u64,
        hold: false,
        profile: wanted.profile.filter(|_| !options.no_profile),
        record: false,
    })
}

/// Asks the daemon; the connection holds a mount that was asked for with `hold`.
pub fn mount(global: &Global, request: MountRequest) -> anyhow::Result<(MountStatus, UnixStream)> {
    let limit = global.deadline() + Duration::from_secs(10);
    let client = Client::new(&defaults::cache(global)?, Some(starter(global)?));
    match client.ask(&Request::Mount(request), limit)? {
        (Reply::Mounted(status), connection) => Ok((*status, connection)),
        (other, _) => bail!("the daemon answered a mount with {other:?}"),
    }
}

/// This program as the daemon.
pub fn starter(global: &Global) -> anyhow::Result<Starter> {
    let mut arguments = vec!["daemon".into()];
    arguments.extend(global.settings().daemon_arguments()?);
    Ok(Starter { program: std::env::current_exe()?, arguments })
}
