//! An image on another machine: until it is mounted, until a program of it has said something, until all of it was read.
//!
//! All times begin with the command that mounts, so that who downloads first and who downloads later can be compared.

use super::start::start;
use super::tar::tar;
use crate::compare::bench::{Bench, Memory, Session};
use crate::compare::contender::{Cache, Reader};
use crate::compare::distance::Distance;
use crate::compare::results::{Extras, Log};
use crate::compare::trees::Tree;
use crate::compare::work::bytes_below;

pub(super) fn run(
    bench: &Bench,
    reader: &dyn Reader,
    distance: Distance,
    log: &mut Log<'_>,
) -> anyhow::Result<()> {
    let [mount, first_output, whole] = distance.parts();
    let session = bench.mount(reader, Tree::Debian, Cache::Empty, Memory::Image)?;
    let opened = session.opened.as_secs_f64();
    log.add(mount, opened * 1e3, session.traffic()?);
    let cold = start(&session)?;
    log.add(first_output, opened * 1e3 + cold, moved(bench, reader, &session)?);
    session.end()?;

    let session = bench.mount(reader, Tree::Debian, Cache::Empty, Memory::Image)?;
    let opened = session.opened.as_secs_f64();
    let (seconds, _) = tar(&session)?;
    log.add(whole, opened + seconds, moved(bench, reader, &session)?);
    session.end()
}

/// What has moved since the mount began, of what there is.
fn moved(bench: &Bench, reader: &dyn Reader, session: &Session<'_>) -> anyhow::Result<Extras> {
    let mut moved = session.traffic()?;
    let (bytes, _) = bytes_below(&bench.image(reader, Tree::Debian)?.folder)?;
    moved.insert("image_bytes", bytes as f64);
    Ok(moved)
}
