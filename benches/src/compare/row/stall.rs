//! Cold reads from three servers of one image, of which the first one stops answering after the mount: what does a reader see
//! of it? Told is the time that one read in a hundred exceeds.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Instant;

use rustix::fs::{Advice, fadvise};

use crate::compare::bench::{Bench, Memory};
use crate::compare::contender::{Cache, Reader};
use crate::compare::results::Log;
use crate::compare::seeded::Seeded;
use crate::compare::trees::{RANDOM, Tree};

/// Reads, each of another part of the file.
const READS: u64 = 600;
const PAGE: u64 = 4096;

pub(super) fn run(bench: &Bench, reader: &dyn Reader, log: &mut Log<'_>) -> anyhow::Result<()> {
    let session = bench.mount(reader, Tree::Large, Cache::Empty, Memory::Image)?;
    let file = File::open(session.place().join(RANDOM))?;
    fadvise(&file, 0, None, Advice::Random)?;
    let part = bench.trees.sizes.random_bytes / READS / PAGE * PAGE;
    let mut order: Vec<u64> = (0..READS).collect();
    let mut random = Seeded::new(11);
    for at in (1..order.len()).rev() {
        order.swap(at, random.below(at as u64 + 1) as usize);
    }
    let mut page = [0; PAGE as usize];
    let mut times = Vec::new();
    for number in order {
        let began = Instant::now();
        file.read_exact_at(&mut page, number * part)?;
        times.push(began.elapsed().as_secs_f64() * 1e3);
    }
    drop(file);
    times.sort_by(f64::total_cmp);
    log.add("stall/p99", times[times.len() * 99 / 100], session.traffic()?);
    log.add("stall/median", times[times.len() / 2], session.traffic()?);
    session.end()
}
