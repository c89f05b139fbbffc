//! Single pages at random offsets: how much more than asked for is fetched and decoded, and what a cached one costs.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Instant;

use super::of_three;
use crate::compare::bench::{Bench, Memory, Session};
use crate::compare::contender::{Cache, Keeps, Reader};
use crate::compare::results::{Extras, Log};
use crate::compare::seeded::Seeded;
use crate::compare::trees::{RANDOM, Tree};

const READS: usize = 2000;
const PAGE: u64 = 4096;
const SEED: u64 = 9;

pub(super) fn run(bench: &Bench, reader: &dyn Reader, log: &mut Log<'_>) -> anyhow::Result<()> {
    let bytes = bench.trees.sizes.random_bytes;
    let session = bench.mount(reader, Tree::Large, Cache::Filling, Memory::Empty)?;
    let before = session.traffic()?;
    log.add("random/empty", read(&session, bytes)?, session.since(&before)?);
    log.add("random/hot", of_three(|| read(&session, bytes))?, Extras::new());
    session.end()?;
    if reader.keeps() == Keeps::Nothing {
        return Ok(());
    }
    // The first of the two leaves what it read of the cache's files in the page cache.
    for (part, memory) in [("random/disk", Memory::Empty), ("random/memory", Memory::AsItIs)] {
        let session = bench.mount(reader, Tree::Large, Cache::Kept, memory)?;
        let before = session.traffic()?;
        log.add(part, read(&session, bytes)?, session.since(&before)?);
        session.end()?;
    }
    Ok(())
}

/// Microseconds a read.
fn read(session: &Session<'_>, bytes: u64) -> anyhow::Result<f64> {
    let mut seeded = Seeded::new(SEED);
    let mut page = [0; PAGE as usize];
    let file = File::open(session.place().join(RANDOM))?;
    let began = Instant::now();
    for _ in 0..READS {
        file.read_exact_at(&mut page, seeded.below(bytes / PAGE) * PAGE)?;
    }
    Ok(began.elapsed().as_secs_f64() * 1e6 / READS as f64)
}
