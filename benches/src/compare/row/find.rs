//! Walking a tree and looking at every inode.

use super::of_three;
use crate::compare::bench::{Bench, Memory, Session};
use crate::compare::contender::{Cache, Reader};
use crate::compare::results::{Extras, Log};
use crate::compare::trees::Tree;
use crate::machine::drop_inodes;
use crate::run::{command, silent};

pub(super) fn run(bench: &Bench, reader: &dyn Reader, log: &mut Log<'_>) -> anyhow::Result<()> {
    let session = bench.mount(reader, Tree::Usr, Cache::Empty, Memory::Empty)?;
    log.add("find/fresh", find(&session)?, Extras::new());
    drop_inodes()?;
    log.add("find/cold", find(&session)?, Extras::new());
    log.add("find/warm", of_three(|| find(&session))?, Extras::new());
    session.end()
}

/// Milliseconds.
fn find(session: &Session<'_>) -> anyhow::Result<f64> {
    let ran = silent(&mut command("find", &[session.place().as_os_str(), "-ls".as_ref()]))?;
    Ok(ran.wall.as_secs_f64() * 1e3)
}
