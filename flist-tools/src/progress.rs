//! Progress bars on stderr, drawn from counters that the work keeps anyway.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::Global;

/// How a bar counts.
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Things.
    Count,
}

/// What a bar shows: how much is done, of how much (0 while nobody knows), of what.
pub struct Look {
    /// Done so far.
    pub done: u64,
    /// The whole.
    pub total: u64,
    /// What is being done.
    pub message: String,
}

/// A bar that asks `look` ten times a second until it is dropped. Hidden with `-q`, `--json` and without a terminal.
pub struct Bar {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Bar {
    /// Starts to draw.
    pub fn start(global: &Global, unit: Unit, look: impl Fn() -> Look + Send + 'static) -> Bar {
        let stop = Arc::new(AtomicBool::new(false));
        if global.quiet || global.json {
            return Bar { stop, thread: None };
        }
        let bar = ProgressBar::new_spinner();
        let (known, open) = match unit {
            Unit::Bytes => (
                "{msg} {wide_bar} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta}",
                "{spinner} {msg} {binary_bytes}",
            ),
            Unit::Count => ("{msg} {wide_bar} {pos}/{len} {eta}", "{spinner} {msg} {pos}"),
        };
        let style = |template| ProgressStyle::with_template(template).expect("the templates are ours");
        let stopped = stop.clone();
        let draw = move || {
            loop {
                // Once more when it has stopped, so that the last thing seen is the end.
                let is_last = stopped.load(Ordering::Acquire);
                let now = look();
                bar.set_style(style(if now.total > 0 { known } else { open }));
                bar.set_length(now.total);
                bar.set_position(now.done);
                bar.set_message(now.message);
                if is_last {
                    bar.force_draw();
                    break;
                }
                thread::park_timeout(Duration::from_millis(100));
            }
            bar.finish_and_clear();
        };
        Bar { stop, thread: Some(thread::spawn(draw)) }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // A bar that panicked has nothing to say about the work.
            let _ = thread.join();
        }
    }
}
