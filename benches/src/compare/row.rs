//! The rows: what is done to each contender in each round.

mod find;
mod flight;
mod mount;
mod net;
mod pack;
mod publish;
mod random;
mod seq;
mod small;
mod stall;
mod start;
mod tar;

use anyhow::{Context, bail};

use super::bench::Bench;
use super::contender::{Packer, Publisher, Reader};
use super::distance::Distance;
use super::results::{Log, median};
use super::trees::Tree;

/// A row; the parts that it measures begin with its name (`tar/empty`), or are named in `part.rs`.
pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) run: Run,
}

/// Whom a row runs with.
#[derive(Clone, Copy)]
pub(super) enum Run {
    Pack(fn(&Bench, &dyn Packer, &mut Log<'_>) -> anyhow::Result<()>),
    Publish(fn(&Bench, &dyn Publisher, &mut Log<'_>) -> anyhow::Result<()>),
    Read(fn(&Bench, &dyn Reader, &mut Log<'_>) -> anyhow::Result<()>),
    /// With those that have it from three servers.
    Three(fn(&Bench, &dyn Reader, &mut Log<'_>) -> anyhow::Result<()>),
    /// With those whose image is far away.
    Far(Distance, fn(&Bench, &dyn Reader, Distance, &mut Log<'_>) -> anyhow::Result<()>),
}

const ROWS: [Row; 15] = [
    Row { name: "pack", run: Run::Pack(|bench, packer, log| pack::run(bench, packer, log, Tree::Usr)) },
    Row { name: "pack-tiny", run: Run::Pack(|bench, packer, log| pack::run(bench, packer, log, Tree::Tiny)) },
    Row { name: "publish", run: Run::Publish(publish::run) },
    Row { name: "mount", run: Run::Read(mount::run) },
    Row { name: "find", run: Run::Read(find::run) },
    Row { name: "small", run: Run::Read(small::run) },
    Row { name: "tar", run: Run::Read(tar::run) },
    Row { name: "seq", run: Run::Read(seq::run) },
    Row { name: "random", run: Run::Read(random::run) },
    Row { name: "flight", run: Run::Read(flight::run) },
    Row { name: "start", run: Run::Read(start::run) },
    Row { name: "lan", run: Run::Far(Distance::Lan, net::run) },
    Row { name: "region", run: Run::Far(Distance::Region, net::run) },
    Row { name: "wan", run: Run::Far(Distance::Wan, net::run) },
    Row { name: "stall", run: Run::Three(stall::run) },
];

/// The middle of three, for what is over in a moment and stays the same when it is done again.
fn of_three(mut measure: impl FnMut() -> anyhow::Result<f64>) -> anyhow::Result<f64> {
    let values = vec![measure()?, measure()?, measure()?];
    median(values).context("no values")
}

/// Those whose names begin so, or all.
pub(super) fn chosen(names: &[String]) -> anyhow::Result<Vec<&'static Row>> {
    if let Some(unknown) =
        names.iter().find(|name| !ROWS.iter().any(|row| row.name.starts_with(name.as_str())))
    {
        bail!("no row begins with {unknown:?}; there are {}", ROWS.map(|row| row.name).join(", "));
    }
    let is_chosen =
        |row: &&Row| names.is_empty() || names.iter().any(|name| row.name.starts_with(name.as_str()));
    Ok(ROWS.iter().filter(is_chosen).collect())
}
