//! Reading one large file from end to end.

use std::fs::File;
use std::io::Read;
use std::time::Instant;

use super::of_three;
use crate::compare::bench::{Bench, Memory, Session};
use crate::compare::contender::{Cache, Reader};
use crate::compare::results::{Extras, Log};
use crate::compare::trees::{BIG, Tree};
use crate::stop;

pub(super) fn run(bench: &Bench, reader: &dyn Reader, log: &mut Log<'_>) -> anyhow::Result<()> {
    let session = bench.mount(reader, Tree::Large, Cache::Empty, Memory::Empty)?;
    let before = session.traffic()?;
    log.add("seq/cold", read(&session)?, session.since(&before)?);
    log.add("seq/hot", of_three(|| read(&session))?, Extras::new());
    session.end()
}

/// MiB a second.
fn read(session: &Session<'_>) -> anyhow::Result<f64> {
    let mut buffer = vec![0; 1 << 20];
    let began = Instant::now();
    let mut file = File::open(session.place().join(BIG))?;
    let mut bytes = 0;
    loop {
        stop::check()?;
        match file.read(&mut buffer)? {
            0 => break,
            n => bytes += n,
        }
    }
    Ok(bytes as f64 / f64::from(1 << 20) / began.elapsed().as_secs_f64())
}
