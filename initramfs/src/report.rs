//! What a build says: its steps with their times on stderr, and in the end its files with their sizes on stdout.

use std::io::{IsTerminal, Write};
use std::time::Instant;

/// A step that has begun.
#[must_use]
pub struct Step {
    what: &'static str,
    began: Instant,
}

/// Says what is being done.
pub fn step(what: &'static str) -> Step {
    // On a terminal the line is replaced by the one that says what came out; in a log, it tells where a build hangs.
    let mut stderr = std::io::stderr().lock();
    let end = if stderr.is_terminal() { "" } else { "\n" };
    let _ = write!(stderr, "initramfs: {what} ...{end}");
    let _ = stderr.flush();
    Step { what, began: Instant::now() }
}

impl Step {
    /// Says that it is done, how long it took, and what came out.
    pub fn done(self, result: &str) {
        let seconds = self.began.elapsed().as_secs_f64();
        let start = if std::io::stderr().is_terminal() { "\r" } else { "" };
        eprintln!("{start}initramfs: {}: {result} in {seconds:.1} s", self.what);
    }
}

/// A number of bytes for people.
pub fn size(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}
