//! Reading a whole tree in tree order: with nothing cached, from the disk cache, from the page cache. And how much
//! memory that left the daemon with.

use crate::compare::bench::{Bench, Memory, Session};
use crate::compare::contender::{Cache, Keeps, Reader};
use crate::compare::results::{Extras, Log};
use crate::compare::trees::Tree;
use crate::run::{pipeline, silent};

pub(super) fn run(bench: &Bench, reader: &dyn Reader, log: &mut Log<'_>) -> anyhow::Result<()> {
    let session = bench.mount(reader, Tree::Usr, Cache::Empty, Memory::Empty)?;
    let (seconds, moved) = tar(&session)?;
    log.add("tar/empty", seconds, moved.clone());
    if reader.keeps() == Keeps::All {
        log.add("tar/fill", seconds, moved);
    }
    log.add("tar/again", tar(&session)?.0, Extras::new());
    memory(&session, log, "rss/empty")?;
    session.end()?;
    if reader.keeps() == Keeps::Nothing {
        return Ok(());
    }
    if reader.keeps() == Keeps::IfTold {
        let session = bench.mount(reader, Tree::Usr, Cache::Filling, Memory::Empty)?;
        let (seconds, moved) = tar(&session)?;
        log.add("tar/fill", seconds, moved);
        session.end()?;
    }
    let session = bench.mount(reader, Tree::Usr, Cache::Kept, Memory::Empty)?;
    let (seconds, moved) = tar(&session)?;
    log.add("tar/disk", seconds, moved);
    memory(&session, log, "rss/disk")?;
    session.end()
}

/// Seconds, and what moved meanwhile. GNU tar reads nothing when it sees that it writes to /dev/null.
pub(super) fn tar(session: &Session<'_>) -> anyhow::Result<(f64, Extras)> {
    let before = session.traffic()?;
    let script = format!("tar -C '{}' -cf - . | cat >/dev/null", session.place().display());
    let ran = silent(&mut pipeline(&script))?;
    Ok((ran.wall.as_secs_f64(), session.since(&before)?))
}

fn memory(session: &Session<'_>, log: &mut Log<'_>, part: &'static str) -> anyhow::Result<()> {
    if let Some(mut memory) = session.memory()?
        && let Some(resident) = memory.remove("rss_bytes")
    {
        log.add(part, resident, memory);
    }
    Ok(())
}
