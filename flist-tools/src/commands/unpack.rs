//! `flist unpack REF DIR`: write an flist out as a directory tree.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use g8_fs::unpack::unpack;

use super::pack::cancel_on_signal;
use crate::cli::{Global, UnpackArgs};
use crate::output;
use crate::progress::{Bar, Look, Unit};
use crate::session::Session;

pub fn run(global: &Global, args: &UnpackArgs) -> anyhow::Result<()> {
    let session = Session::open(global, &args.reference)?;
    let cancel = cancel_on_signal()?;
    let written = Arc::new(AtomicU64::new(0));
    let (shown, total) = (written.clone(), session.fs.image().root.content_bytes);
    let bar = Bar::start(global, Unit::Bytes, move || Look {
        done: shown.load(Ordering::Relaxed),
        total,
        message: "unpacking".into(),
    });
    let report = unpack(&session.fs, &args.dir, session.runtime.handle(), &written, &cancel)?;
    drop(bar);
    for left in &report.left_out {
        output::warn(format_args!("left out, it needs root: {} of {}", left.what, left.path.display()));
    }
    if global.json { output::json(&report) } else { Ok(()) }
}
