//! Packing a tree that is in the page cache, until the image is on the disk; and how large the image is.

use std::fs::File;
use std::time::Instant;

use anyhow::Context;

use crate::compare::bench::Bench;
use crate::compare::contender::Packer;
use crate::compare::results::{Extras, Log};
use crate::compare::trees::Tree;
use crate::compare::work::bytes_below;
use crate::machine::warm;
use crate::run::run as run_program;

pub(super) fn run(bench: &Bench, packer: &dyn Packer, log: &mut Log<'_>, tree: Tree) -> anyhow::Result<()> {
    let source = bench.trees.get(tree)?;
    let out = bench.folder("packed")?;
    let folder = File::open(&out)?;
    let mut command = packer.command(&source.path, &out)?;
    warm(&source.path)?;
    // What the one before has left to write is not this one's affair.
    rustix::fs::syncfs(&folder).context("syncing")?;

    let began = Instant::now();
    let ran = run_program(&mut command)?;
    rustix::fs::syncfs(&folder).context("syncing")?;
    let seconds = began.elapsed().as_secs_f64();

    let mut extras = Extras::from([
        ("mb_per_second", source.bytes as f64 / 1e6 / seconds),
        ("peak_rss_bytes", ran.peak_rss_bytes as f64),
        ("cpu_seconds", ran.cpu.as_secs_f64()),
    ]);
    let (bytes, _) = bytes_below(&out)?;
    let (time, size) = match tree {
        Tree::Tiny => ("pack/tiny", "size/tiny"),
        _ => ("pack/usr", "size/usr"),
    };
    if tree == Tree::Tiny {
        extras.insert("files_per_second", source.entries as f64 / seconds);
    }
    log.add(time, seconds, extras);
    log.add(size, bytes as f64, Extras::new());
    bench.folder("packed")?;
    Ok(())
}
