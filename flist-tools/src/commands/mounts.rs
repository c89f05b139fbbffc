//! `flist mounts`: what is mounted, by asking the daemon of every cache that the mount table names.

use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use comfy_table::{Cell, Table, presets};
use g8_fs::daemon::{Client, ClientError, Reply, Request};
use g8_fs::engine::{MountStatus, mountpoint};

use crate::cli::Global;
use crate::exit::Quiet;
use crate::output;

const LIMIT: Duration = Duration::from_secs(5);

pub fn run(global: &Global) -> anyhow::Result<()> {
    let own = mountpoint::own_mounts().context("reading the mount table")?;
    let caches: BTreeSet<(PathBuf, u32)> = own.iter().map(|m| (m.cache.clone(), m.owner)).collect();
    let mut mounts: Vec<MountStatus> = Vec::new();
    let mut unheard = 0;
    for (cache, owner) in caches {
        match Client::new(&cache, None).owned_by(owner).ask(&Request::Mounts, LIMIT) {
            Ok((Reply::Mounts(list), _)) => mounts.extend(list),
            Ok((other, _)) => bail!("the daemon answered with {other:?}"),
            Err(ClientError::NotRunning(_)) => {
                for dead in own.iter().filter(|m| m.cache == cache) {
                    let at = output::name(dead.mountpoint.as_os_str().as_bytes());
                    output::warn(format_args!("the daemon of {at} is gone: `flist umount {at}` clears it"));
                }
            }
            // Whose they are sees them.
            Err(ClientError::Foreign(_)) => {
                tracing::info!(cache = %cache.display(), "mounts of another user")
            }
            Err(e) => {
                unheard += 1;
                output::warn(e);
            }
        }
    }
    if global.json {
        output::json(&mounts)?;
    } else if !mounts.is_empty() {
        output::line(table(&mounts))?;
    }
    if unheard > 0 { Err(Quiet(1).into()) } else { Ok(()) }
}

fn table(mounts: &[MountStatus]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header([
        "MOUNTPOINT",
        "REF",
        "MODE",
        "PID",
        "READ",
        "FETCHED",
        "HITS (MEM/DISK)",
        "PROFILE",
        "ERRORS",
    ]);
    for m in mounts {
        table.add_row([
            Cell::new(output::name(m.mountpoint.as_os_str().as_bytes())),
            Cell::new(output::name(m.reference.as_bytes())),
            Cell::new(m.mode),
            Cell::new(m.pid),
            Cell::new(output::size(m.bytes_read)),
            Cell::new(output::size(m.bytes_fetched)),
            Cell::new(format!("{}/{}", m.hits.memory, m.hits.disk)),
            Cell::new(m.profile.as_ref().map(|p| format!("{}/{}", p.fetched, p.wanted)).unwrap_or_default()),
            Cell::new(match &m.last_error {
                Some(id) => format!("{} (last: {id})", m.errors),
                None => m.errors.to_string(),
            }),
        ]);
    }
    table
}
