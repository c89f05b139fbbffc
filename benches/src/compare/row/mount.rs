//! How long it takes until a tree of many inodes is there.

use crate::compare::bench::{Bench, Memory};
use crate::compare::contender::{Cache, Reader};
use crate::compare::results::{Extras, Log};
use crate::compare::trees::Tree;

pub(super) fn run(bench: &Bench, reader: &dyn Reader, log: &mut Log<'_>) -> anyhow::Result<()> {
    let first = bench.mount(reader, Tree::Tiny, Cache::Filling, Memory::Image)?;
    log.add("mount/first", first.opened.as_secs_f64() * 1e3, Extras::new());
    // A daemon that serves many mounts is there already when the second one comes.
    let first = if reader.shares_daemon() {
        Some(first)
    } else {
        first.end()?;
        None
    };
    let again = bench.mount(reader, Tree::Tiny, Cache::Kept, Memory::AsItIs)?;
    log.add("mount/again", again.opened.as_secs_f64() * 1e3, Extras::new());
    if let Some(milliseconds) = again.opened_inside_ms() {
        log.add("mount/inside", milliseconds, Extras::new());
    }
    again.end()?;
    first.map_or(Ok(()), |first| first.end())
}
