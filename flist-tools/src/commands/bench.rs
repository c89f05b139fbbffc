//! `flist bench REF -- CMD`: how fast files and a command are there, cold and warm, from each source.
//!
//! Every round of every source has a cache and a daemon of its own, so that cold is cold. Rounds go over all sources in
//! turn, so that a change of the machine's speed hits all of them. Cold is the first use of a fresh mount with an
//! empty cache, warm the second use of the same mount.

mod files;
mod place;
mod plot;
mod report;
mod start;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::bail;

use crate::cli::{BenchArgs, Global};
use crate::commands::pack::cancel_on_signal;
use crate::progress::{Bar, Look, Unit};
use crate::session::{Session, wanted};
use crate::{defaults, output};
use place::Place;
use report::Report;

pub fn run(global: &Global, args: &BenchArgs) -> anyhow::Result<()> {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root && !args.command.is_empty() {
        bail!("starting a command needs root, for its namespaces and mounts; without one files are measured");
    }
    if !is_root && args.drop_caches {
        bail!("--drop-caches needs root");
    }
    let cancel = cancel_on_signal()?;
    let sources = defaults::sources(global)?;
    let wanted = wanted(global, &args.reference)?;
    let image = Session::of(global, &wanted)?.fs.image().clone();
    let mut report = Report::new(&image, &sources);
    let steps = u64::from(args.rounds) * sources.len() as u64;
    let done = Arc::new(AtomicU64::new(0));
    let shown = done.clone();
    let bar = Bar::start(global, Unit::Count, move || Look {
        done: shown.load(Ordering::Relaxed),
        total: steps,
        message: "measuring".into(),
    });
    for _ in 0..args.rounds {
        for (source, rows) in sources.iter().zip(&mut report.sources) {
            if cancel.load(Ordering::Relaxed) {
                bail!("interrupted");
            }
            // Files and the command apart: what one has read would make the other one warm.
            let place = Place::new(global, args, &wanted, source)?;
            rows.add_files(place.mounted_in, &files::measure(&place, args)?);
            place.end()?;
            if !args.command.is_empty() {
                let place = Place::new(global, args, &wanted, source)?;
                rows.add_start(&start::measure(&place, args, &image.root.config)?);
                place.end()?;
            }
            done.fetch_add(1, Ordering::Relaxed);
        }
    }
    drop(bar);
    if let Some(file) = &args.plot {
        plot::write(&report, file)?;
    }
    if global.json { output::json(&report) } else { output::line(report.table()) }
}
