//! `flist pack DIR`: pack a tree and print its CID.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use g8_fs::format::RunConfig;
use g8_fs::pack::{Filter, PackOptions, Progress, pack};
use g8_fs::source::DirStore;

use crate::cli::{Global, PackArgs};
use crate::progress::{Bar, Look, Unit};
use crate::{defaults, output};

pub fn run(global: &Global, args: &PackArgs) -> anyhow::Result<()> {
    let options = options(args)?;
    let store = DirStore::create(&defaults::sink(global)?)?;
    let cancel = cancel_on_signal()?;
    let progress = Arc::new(Progress::default());
    let shown = progress.clone();
    let bar = Bar::start(global, Unit::Bytes, move || Look {
        done: shown.bytes_read.load(Ordering::Relaxed),
        total: if shown.walked.load(Ordering::Relaxed) {
            shown.bytes_found.load(Ordering::Relaxed)
        } else {
            0
        },
        message: format!("packing {} entries", shown.entries.load(Ordering::Relaxed)),
    });
    let report = pack(&args.dir, &options, &store, &progress, &cancel)?;
    drop(bar);
    for path in &report.skipped {
        output::warn(format_args!("left out, it changed while it was read: {}", path.display()));
    }
    if global.json { output::json(&report) } else { output::line(report.cid) }
}

fn options(args: &PackArgs) -> anyhow::Result<PackOptions> {
    let defaults = PackOptions::default();
    let labels: BTreeMap<String, String> = args
        .label
        .iter()
        .filter_map(|label| label.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    Ok(PackOptions {
        filter: Filter::new(&args.exclude)?,
        one_file_system: args.one_file_system,
        clamp_mtime: args.clamp_mtime,
        owner: args.owner,
        level: args.level,
        frame_len: args.frame,
        skip_changed: args.skip_changed,
        threads: args.threads.map_or(defaults.threads, usize::from),
        arch: args.arch.clone(),
        config: RunConfig {
            entrypoint: args.entrypoint.clone(),
            env: args.env.clone(),
            labels,
            user: args.user.clone(),
            workdir: args.workdir.clone(),
        },
    })
}

/// A flag that the first Ctrl-C sets, so that work ends in good order; the second one ends the process.
pub fn cancel_on_signal() -> std::io::Result<Arc<AtomicBool>> {
    use signal_hook::consts::{SIGINT, SIGTERM};
    let cancel = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(signal, 130, cancel.clone())?;
        signal_hook::flag::register(signal, cancel.clone())?;
    }
    Ok(cancel)
}
