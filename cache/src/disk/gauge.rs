//! A number that is dear to ask for and may be a second old.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

/// How old a reading may be, in milliseconds.
const MAX_AGE_MS: u64 = 1000;

/// The last reading and when it was taken. Two threads may both take one; they agree well enough.
pub(super) struct Gauge {
    start: Instant,
    /// Milliseconds since `start`, plus one; zero is never.
    taken: AtomicU64,
    value: AtomicU64,
}

impl Gauge {
    pub(super) fn new() -> Gauge {
        Gauge { start: Instant::now(), taken: AtomicU64::new(0), value: AtomicU64::new(0) }
    }

    /// The last reading if it is young enough, else a new one from `measure`.
    pub(super) fn read(&self, measure: impl FnOnce() -> u64) -> u64 {
        let now = self.start.elapsed().as_millis() as u64 + 1;
        let taken = self.taken.load(Relaxed);
        if taken != 0 && now - taken.min(now) < MAX_AGE_MS {
            return self.value.load(Relaxed);
        }
        let value = measure();
        self.value.store(value, Relaxed);
        self.taken.store(now, Relaxed);
        value
    }

    /// Makes the next reading a new one.
    pub(super) fn forget(&self) {
        self.taken.store(0, Relaxed);
    }
}
