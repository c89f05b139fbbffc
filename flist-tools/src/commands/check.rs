//! `flist check REF`: prove every object of an flist in its sources.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use g8_fs::check::{CheckProgress, check};

use crate::cli::{CheckArgs, Global};
use crate::exit::Quiet;
use crate::output;
use crate::progress::{Bar, Look, Unit};
use crate::session::{runtime, wanted};

pub fn run(global: &Global, args: &CheckArgs) -> anyhow::Result<()> {
    let wanted = wanted(global, &args.reference)?;
    let sources = wanted.open_sources(Instant::now() + global.deadline())?;
    let progress = Arc::new(CheckProgress::default());
    let shown = progress.clone();
    let bar = Bar::start(global, Unit::Count, move || Look {
        done: shown.done.load(Ordering::Relaxed),
        total: shown.total.load(Ordering::Relaxed),
        message: "checking objects".into(),
    });
    let report = runtime()?.block_on(check(wanted.id, &sources, global.deadline(), &progress));
    drop(bar);
    if global.json {
        output::json(&report)?;
    } else {
        for problem in &report.problems {
            output::line(format_args!("{} {}: {}", problem.kind, problem.object, problem.what))?;
        }
        let verdict = if report.problems.is_empty() { "whole" } else { "damaged" };
        let (objects, bytes) = (report.objects, output::size(report.bytes));
        output::line(format_args!("{} is {verdict}: {objects} objects, {bytes} proven", report.cid))?;
    }
    if report.problems.is_empty() {
        return Ok(());
    }
    output::warn(format_args!(
        "{} problems: pack the tree again into this store, or copy the named objects from another one",
        report.problems.len()
    ));
    Err(Quiet(1).into())
}
