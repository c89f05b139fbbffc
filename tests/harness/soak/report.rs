//! What happened, and what must not have.

use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Violations that are told; one is enough to fail.
const TOLD: usize = 20;

/// A number that only grows.
#[derive(Debug, Default)]
pub(super) struct Count(AtomicU64);

impl Count {
    pub(super) fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    fn raise(&self, n: u64) {
        self.0.fetch_max(n, Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// What was counted.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) reads: Count,
    pub(super) bytes: Count,
    pub(super) listings: Count,
    /// Reads whose mount went away meanwhile.
    pub(super) interrupted: Count,
    pub(super) mounts: Count,
    /// Mounts that could not be made, for want of metadata.
    pub(super) refused: Count,
    pub(super) kills: Count,
    /// `cache clear`, `cache gc`, another budget.
    pub(super) evictions: Count,
    /// Sources added or removed under readers.
    pub(super) sources: Count,
    pub(super) weather: Count,
    longest_ms: Count,
    daemon_kib: Count,
}

/// The record of a run.
#[derive(Debug)]
pub struct Report {
    seed: u64,
    pub(super) counts: Counts,
    errors: Mutex<BTreeMap<String, u64>>,
    /// How often a mount was to be made from each kind of source.
    kinds: Mutex<BTreeMap<String, u64>>,
    violations: Mutex<Vec<String>>,
}

impl Report {
    pub(super) fn new(seed: u64) -> Report {
        let (errors, kinds, violations) = (Mutex::default(), Mutex::default(), Mutex::default());
        Report { seed, counts: Counts::default(), errors, kinds, violations }
    }

    /// Somebody mounts from these.
    pub(super) fn asks(&self, specs: &[String]) {
        let mut kinds = self.kinds.lock().expect("counting does not panic");
        for spec in specs {
            let kind = spec.split(':').next().unwrap_or_default();
            *kinds.entry(kind.to_owned()).or_default() += 1;
        }
    }

    /// The kinds of sources that mounts were to be made from.
    pub fn kinds(&self) -> Vec<String> {
        self.kinds.lock().expect("counting does not panic").keys().cloned().collect()
    }

    /// A read failed as it may.
    pub(super) fn failed(&self, error: &std::io::Error) {
        let name = match error.raw_os_error() {
            Some(libc::EIO) => "EIO".to_owned(),
            Some(libc::ETIMEDOUT) => "ETIMEDOUT".to_owned(),
            _ => error.to_string(),
        };
        *self.errors.lock().expect("counting does not panic").entry(name).or_default() += 1;
    }

    pub(super) fn took(&self, time: Duration) {
        self.counts.longest_ms.raise(time.as_millis() as u64);
    }

    pub(super) fn daemon_holds(&self, kib: u64) {
        self.counts.daemon_kib.raise(kib);
    }

    pub(super) fn violation(&self, what: String) {
        let mut violations = self.violations.lock().expect("pushing does not panic");
        if violations.len() < TOLD {
            eprintln!("VIOLATION: {what}");
        }
        violations.push(what);
    }

    /// A panic in `work` is a violation, and no reason to leave mounts behind.
    pub(super) fn guard(&self, who: &str, work: impl FnOnce()) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(work)) {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it panicked");
            self.violation(format!("{who}: {text}"));
        }
    }

    /// Whether something happened that must not.
    pub fn has_violations(&self) -> bool {
        !self.violations.lock().expect("pushing does not panic").is_empty()
    }

    /// Reads that gave right bytes.
    pub fn reads(&self) -> u64 {
        self.counts.reads.get()
    }

    /// Daemons that were killed.
    pub fn kills(&self) -> u64 {
        self.counts.kills.get()
    }

    /// One line.
    pub(super) fn line(&self) -> String {
        let c = &self.counts;
        let failed: u64 = self.errors.lock().expect("counting does not panic").values().sum();
        format!(
            "{} reads right, {failed} failed, {} mounts, {} kills, {} evictions, {} changes of weather",
            c.reads.get(),
            c.mounts.get(),
            c.kills.get(),
            c.evictions.get(),
            c.weather.get()
        )
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let c = &self.counts;
        writeln!(f, "seed                  {}", self.seed)?;
        writeln!(f, "reads, right          {} ({} MB)", c.reads.get(), c.bytes.get() / 1_000_000)?;
        for (error, times) in &*self.errors.lock().expect("counting does not panic") {
            writeln!(f, "reads, {error:<14} {times}")?;
        }
        writeln!(f, "reads, interrupted    {}", c.interrupted.get())?;
        writeln!(f, "listings, right       {}", c.listings.get())?;
        writeln!(f, "longest read          {} ms", c.longest_ms.get())?;
        writeln!(f, "mounts                {}, and {} refused", c.mounts.get(), c.refused.get())?;

        let kinds = self.kinds.lock().expect("counting does not panic").clone();
        let kinds: Vec<String> = kinds.iter().map(|(kind, times)| format!("{kind} {times}")).collect();
        writeln!(f, "mounted from          {}", kinds.join(", "))?;
        writeln!(f, "daemons killed        {}", c.kills.get())?;
        writeln!(f, "evictions             {}", c.evictions.get())?;
        writeln!(f, "sources changed       {}", c.sources.get())?;
        writeln!(f, "changes of weather    {}", c.weather.get())?;
        writeln!(f, "largest daemon        {} MiB", c.daemon_kib.get() / 1024)?;
        let violations = self.violations.lock().expect("pushing does not panic");
        write!(f, "violations            {}", violations.len())?;
        violations.iter().take(TOLD).try_for_each(|violation| write!(f, "\n  {violation}"))
    }
}
