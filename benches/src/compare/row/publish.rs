//! Publishing an image that is in the page cache to a real node with nothing on it, until the node keeps it.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, ensure};
use harness::ipfs::Daemon;

use crate::compare::bench::Bench;
use crate::compare::contender::{Image, Publisher, packed_cid};
use crate::compare::results::{Extras, Log};
use crate::compare::trees::Tree;
use crate::flist::Flist;
use crate::machine::warm;
use crate::run::{run as run_program, silent};

pub(super) fn run(bench: &Bench, publisher: &dyn Publisher, log: &mut Log<'_>) -> anyhow::Result<()> {
    let image = bench.packed(Tree::Usr)?;
    let car = archive(&image)?;
    let node = Daemon::js_ipfs().map_err(anyhow::Error::msg).context("starting js-ipfs")?;
    warm(&image.folder)?;
    silent(std::process::Command::new("cat").arg(&car))?;

    let ran = run_program(&mut publisher.command(&image, &car, &node)?)?;

    let (pins, cid) = (node.pins(), packed_cid(&image)?);
    ensure!(pins == [cid.as_str()], "{cid} is not what the node has pinned: {pins:?}");
    let bytes = fs::metadata(&car)?.len() as f64;
    let mebibytes_a_second = bytes / f64::from(1 << 20) / ran.wall.as_secs_f64();
    let extras = Extras::from([
        ("image_bytes", bytes),
        ("peak_rss_bytes", ran.peak_rss_bytes as f64),
        ("cpu_seconds", ran.cpu.as_secs_f64()),
    ]);
    log.add("publish/usr", mebibytes_a_second, extras);
    Ok(())
}

/// The image as an archive, made once.
fn archive(image: &Image) -> anyhow::Result<PathBuf> {
    let car = image.folder.with_extension("car");
    if !car.exists() {
        let flist = Flist::at(&image.folder, &image.folder.with_extension("cache"))?;
        let to = format!("car:{}", car.display());
        silent(&mut flist.command(&["publish", &packed_cid(image)?, "--to", &to]))?;
    }
    Ok(car)
}
