//! How often a failure may be logged that somebody else can cause again and again.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Lines in each window.
const LINES: u32 = 20;
const WINDOW: Duration = Duration::from_secs(60);

/// A log that nobody fills a disk with.
#[derive(Debug)]
pub struct LogQuota(Mutex<(Instant, u32)>);

impl Default for LogQuota {
    fn default() -> Self {
        Self::new()
    }
}

impl LogQuota {
    /// Nothing written yet.
    pub fn new() -> LogQuota {
        LogQuota(Mutex::new((Instant::now(), 0)))
    }

    /// Whether one more line may be written; it counts as written.
    pub fn allows(&self) -> bool {
        let mut logged = self.0.lock();
        if logged.0.elapsed() >= WINDOW {
            *logged = (Instant::now(), 0);
        }
        logged.1 = logged.1.saturating_add(1);
        logged.1 <= LINES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_has_so_many_lines_and_the_next_one_as_many_again() {
        let quota = LogQuota::new();
        let written = || (0..100).filter(|_| quota.allows()).count() as u32;
        assert_eq!((written(), written()), (LINES, 0));
        quota.0.lock().0 -= WINDOW;
        assert_eq!(written(), LINES);
    }
}
