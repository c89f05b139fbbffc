//! The first output of a program in a root file system of which nothing has been read yet.

use std::process::Command;

use super::of_three;
use crate::compare::bench::{Bench, Memory, Session};
use crate::compare::contender::{Cache, PROGRAM, Reader};
use crate::compare::results::{Extras, Log};
use crate::compare::trees::Tree;
use crate::run::first_line;

pub(super) fn run(bench: &Bench, reader: &dyn Reader, log: &mut Log<'_>) -> anyhow::Result<()> {
    let session = bench.mount(reader, Tree::Debian, Cache::Empty, Memory::Empty)?;
    let cold = start(&session)?;
    // Since the mount began: the metadata counts.
    let mut moved = session.traffic()?;
    if moved.contains_key("fetched_bytes") {
        moved.insert("needed_bytes", bench.needed(Tree::Debian)?.start);
    }
    log.add("start/cold", cold, moved);
    log.add("start/warm", of_three(|| start(&session))?, Extras::new());
    session.end()
}

/// Milliseconds.
pub(super) fn start(session: &Session<'_>) -> anyhow::Result<f64> {
    let mut command = Command::new("chroot");
    command.arg(session.place()).args(PROGRAM);
    // The tree of ext4 is the source of all others: nothing may be written there.
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    let (time, line) = first_line(&mut command)?;
    anyhow::ensure!(line == "1\n", "python3 said {line:?}");
    Ok(time.as_secs_f64() * 1e3)
}
