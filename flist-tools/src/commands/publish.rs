//! `flist publish REF --to SINK`: put every object of an flist where others find it.

use std::sync::Arc;
use std::time::Instant;

use g8_fs::publish::{Progress, PublishOptions, PublishReport, Reached, publish};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::cli::{Global, PublishArgs};
use crate::progress::{Bar, Look, Unit};
use crate::session::{runtime, wanted};
use crate::{defaults, output};

/// Begins the name of every pin of ours.
const PIN: &str = "flist:";

pub fn run(global: &Global, args: &PublishArgs) -> anyhow::Result<()> {
    let wanted = wanted(global, &args.reference)?;
    let sinks = defaults::sinks(global)?;
    let sources = wanted.open_sources(Instant::now() + global.deadline())?;
    let name = format!("{PIN}{}", args.name.clone().unwrap_or_else(|| wanted.id.to_string()));
    let profile = wanted.profile.filter(|_| !args.no_profile);
    let options = PublishOptions { deadline: global.deadline(), name, profile };
    let runtime = runtime()?;
    let stop = runtime.block_on(async { stop_on_signal() })?;
    let mut reports = Vec::new();
    for sink in &sinks {
        let progress = Arc::new(Progress::default());
        let (shown, to) = (progress.clone(), sink.to_string());
        let bar = Bar::start(global, Unit::Bytes, move || look(&shown.look(), &to));
        let report = runtime.block_on(publish(wanted.id, &sources, sink, &options, &progress, &stop))?;
        drop(bar);
        if !global.json {
            tell(&report)?;
        }
        reports.push(report);
    }
    if global.json { output::json(&reports) } else { Ok(()) }
}

fn look(reached: &Reached, to: &str) -> Look {
    let Reached { objects, bytes, done, done_bytes, skipped, moving, moving_bytes } = reached;
    let there = if *skipped > 0 { format!(", {skipped} were there") } else { String::new() };
    // What is sent to be pinned, though it was there, is not more than there is.
    let moved = (done + moving).min(*objects);
    let message = format!("publishing to {to}: {moved} of {objects} objects{there}");
    Look { done: done_bytes + moving_bytes, total: *bytes, message }
}

fn tell(report: &PublishReport) -> anyhow::Result<()> {
    let PublishReport { cid, to, objects, sent, .. } = report;
    let (bytes, sent_bytes) = (output::size(report.bytes), output::size(report.sent_bytes));
    let pin = report.pin.as_ref().map(|pin| format!(", pinned as {pin}")).unwrap_or_default();
    let profile = report.profile.map(|profile| format!("?profile={profile}")).unwrap_or_default();
    output::line(format_args!(
        "{cid}{profile} is in {to}{pin}: {objects} objects of {bytes}, {sent} of {sent_bytes} were sent"
    ))
}

/// Hears the first signal, so that work ends in good order; the second one ends the process.
fn stop_on_signal() -> std::io::Result<watch::Receiver<bool>> {
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let (tell, stop) = watch::channel(false);
    tokio::spawn(async move {
        tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
        tell.send_replace(true);
        tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
        std::process::exit(130);
    });
    Ok(stop)
}
