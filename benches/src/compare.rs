//! `make bench`: flist beside its rivals, interleaved in one run.
//!
//! Each round runs every row with every contender once, each time in another order, so that a change of the machine's
//! speed hits all of them. Reported are medians, their ratio to flist, and which of the figures we aim for are met;
//! every single run goes to `benches/results/`. A slow run is a number, wrong content is an error.

mod bench;
mod contender;
mod digest;
mod distance;
mod facts;
mod figures;
mod options;
mod part;
mod plot;
mod results;
mod row;
mod seeded;
mod table;
mod trees;
mod work;

use std::time::Instant;

use anyhow::Context;

use self::bench::Bench;
use self::contender::Contenders;
use self::facts::Facts;
use self::results::{Log, Results};
use self::row::{Row, Run};
use crate::machine::need_root;
use crate::stop;

pub use self::options::Options;

/// Runs the comparison and prints it.
pub fn compare(options: &Options) -> anyhow::Result<()> {
    need_root("the comparison")?;
    let rows = row::chosen(&options.rows)?;
    stop::listen()?;
    let contenders = contender::all(&options.without)?;
    let began = Instant::now();
    let bench = Bench::new(options)?;
    let results = rounds(&bench, &rows, &contenders, options.rounds())?;
    let facts = Facts::gather(options, &bench, &contenders, began.elapsed())?;
    drop(bench);
    println!("{}", facts.header());
    table::print(&results);
    let checked = figures::check(&results);
    figures::print(&checked);
    let stem = facts.stem();
    results::keep(&stem, &facts, &results, &checked)?;
    plot::draw(&stem.with_extension("svg"), &results, &facts).context("drawing")?;
    println!("\nraw runs: {0}.json, drawn: {0}.svg", stem.display());
    Ok(())
}

fn rounds(bench: &Bench, rows: &[&Row], contenders: &Contenders, rounds: usize) -> anyhow::Result<Results> {
    let mut results = Results::default();
    for round in 0..rounds {
        for row in rows {
            let progress =
                |name: &str| bench.say(&format!("round {}/{rounds}, {}: {name}", round + 1, row.name));
            match row.run {
                Run::Pack(run) => {
                    for packer in rotated(&contenders.packers, round) {
                        progress(packer.name());
                        let mut log = Log::new(&mut results, packer.name(), round);
                        run(bench, packer.as_ref(), &mut log)
                            .with_context(|| format!("row {}, {}", row.name, packer.name()))?;
                    }
                }
                Run::Publish(run) => {
                    for publisher in rotated(&contenders.publishers, round) {
                        stop::check()?;
                        progress(publisher.name());
                        let mut log = Log::new(&mut results, publisher.name(), round);
                        run(bench, publisher.as_ref(), &mut log)
                            .with_context(|| format!("row {}, {}", row.name, publisher.name()))?;
                    }
                }
                Run::Read(run) => {
                    for reader in rotated(&contenders.readers, round) {
                        if !reader.enters(row.name) {
                            continue;
                        }
                        progress(reader.name());
                        let mut log = Log::new(&mut results, reader.name(), round);
                        run(bench, reader.as_ref(), &mut log)
                            .and_then(|()| bench.finish(reader.as_ref()))
                            .with_context(|| format!("row {}, {}", row.name, reader.name()))?;
                    }
                }
                Run::Three(run) => {
                    for reader in rotated(&contenders.of_three()?, round) {
                        progress(reader.name());
                        let mut log = Log::new(&mut results, reader.name(), round);
                        run(bench, reader.as_ref(), &mut log)
                            .with_context(|| format!("row {}, {}", row.name, reader.name()))?;
                    }
                }
                Run::Far(distance, run) => {
                    for reader in rotated(&contenders.at(distance)?, round) {
                        progress(reader.name());
                        let mut log = Log::new(&mut results, reader.name(), round);
                        run(bench, reader.as_ref(), distance, &mut log)
                            .and_then(|()| bench.finish(reader.as_ref()))
                            .with_context(|| format!("row {}, {}", row.name, reader.name()))?;
                    }
                }
            }
        }
    }
    bench.say("");
    Ok(results)
}

/// Each round begins with another contender: nobody always runs behind the same one.
fn rotated<T>(all: &[T], round: usize) -> impl Iterator<Item = &T> {
    all.iter().cycle().skip(round % all.len().max(1)).take(all.len())
}
