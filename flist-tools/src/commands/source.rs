//! `flist source add|rm|list DIR`: the sources of a mount, through the daemon that serves it.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use comfy_table::{Cell, Table, presets};
use g8_cache::SourceStats;
use g8_fs::daemon::{Client, Reply, Request};
use g8_fs::engine::mountpoint;

use crate::cli::{Global, SourceCommand};
use crate::output;

/// What the daemon may need beside opening a source.
const LIMIT: Duration = Duration::from_secs(10);

pub fn run(global: &Global, command: &SourceCommand) -> anyhow::Result<()> {
    let (dir, limit) = match command {
        SourceCommand::Add { dir, .. } => (dir, global.deadline() + LIMIT),
        SourceCommand::Rm { dir, .. } | SourceCommand::List { dir } => (dir, LIMIT),
    };
    let (mountpoint, client) = served(dir)?;
    let request = match command {
        SourceCommand::Add { spec, .. } => {
            let deadline_ms = global.deadline().as_millis() as u64;
            Request::SourceAdd { mountpoint, source: spec.clone().absolute()?, deadline_ms }
        }
        SourceCommand::Rm { spec, force, .. } => {
            let source = spec.clone().absolute()?.to_string();
            Request::SourceRemove { mountpoint, source, force: *force }
        }
        SourceCommand::List { .. } => Request::SourceList { mountpoint },
    };
    let sources = match client.ask(&request, limit)? {
        (Reply::Sources(sources), _) => sources,
        (other, _) => bail!("the daemon answered with {other:?}"),
    };
    if global.json {
        return output::json(&sources);
    }
    match command {
        SourceCommand::List { .. } => output::line(table(&sources)),
        SourceCommand::Add { .. } | SourceCommand::Rm { .. } => Ok(()),
    }
}

/// The mount on `dir`, and its daemon.
fn served(dir: &Path) -> anyhow::Result<(std::path::PathBuf, Client)> {
    let dir = mountpoint::resolve(dir).with_context(|| dir.display().to_string())?;
    if mountpoint::is_dead(&dir) {
        bail!("the daemon of {0} is gone: `flist umount {0}` clears it", dir.display());
    }
    let mount = mountpoint::own_mount_at(&dir.canonicalize().unwrap_or(dir))?;
    let client = Client::new(&mount.cache, None).owned_by(mount.owner);
    Ok((mount.mountpoint, client))
}

fn table(sources: &[SourceStats]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["SOURCE", "REQUESTS", "RECEIVED", "WRONG", "ERRORS", "TROUBLE"]);
    for source in sources {
        table.add_row([
            Cell::new(output::name(source.spec.as_bytes())),
            Cell::new(source.requests),
            Cell::new(output::size(source.bytes)),
            Cell::new(source.wrong),
            Cell::new(source.errors),
            Cell::new(output::name(source.trouble.as_deref().unwrap_or_default().as_bytes())),
        ]);
    }
    table
}
