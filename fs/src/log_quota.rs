//! How often a failure may be logged that somebody else can cause again and again, and by which name it is found in the log.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
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

/// The name of one failure: by chance, since a log has the failures of many mounts and of daemons that are gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogId(pub(crate) u32);

impl LogId {
    /// A new one; never 0.
    pub(crate) fn new() -> LogId {
        // Its keys are random and no two are the same.
        LogId(RandomState::new().hash_one(()) as u32 | 1)
    }
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_failures_have_one_name() {
        let names: std::collections::HashSet<String> = (0..100).map(|_| LogId::new().to_string()).collect();
        assert_eq!(names.len(), 100);
        assert!(names.iter().all(|name| name.len() == 8));
    }

    #[test]
    fn a_window_has_so_many_lines_and_the_next_one_as_many_again() {
        let quota = LogQuota::new();
        let written = || (0..100).filter(|_| quota.allows()).count() as u32;
        assert_eq!((written(), written()), (LINES, 0));
        quota.0.lock().0 -= WINDOW;
        assert_eq!(written(), LINES);
    }
}
