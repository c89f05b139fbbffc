//! An image on another machine: until it is mounted, until a program of it has said something, until all of it was read.
//!
//! All times begin with the command that mounts, so that who downloads first and who downloads later can be compared. Beside
//! the bytes that a server sent stand those that were needed (`Needed`).

use super::start::start;
use super::tar::tar;
use crate::compare::bench::{Bench, Memory};
use crate::compare::contender::{Cache, Reader};
use crate::compare::distance::Distance;
use crate::compare::results::{Extras, Log};
use crate::compare::trees::Tree;

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
    let moved = with(session.traffic()?, bench.needed(Tree::Debian)?.start);
    log.add(first_output, opened * 1e3 + cold, moved);
    session.end()?;

    let session = bench.mount(reader, Tree::Debian, Cache::Empty, Memory::Image)?;
    let opened = session.opened.as_secs_f64();
    let (seconds, _) = tar(&session)?;
    log.add(whole, opened + seconds, with(session.traffic()?, bench.needed(Tree::Debian)?.all));
    session.end()
}

/// What has moved since the mount began, and what was needed of it.
fn with(mut moved: Extras, needed: f64) -> Extras {
    moved.insert("needed_bytes", needed);
    moved
}
