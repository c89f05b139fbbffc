//! What jobs, services and the node say: a bounded ring in memory, a rotated file, and streams for who listens.
//!
//! Nothing here blocks a job. Where a sink is behind, records are dropped and counted, and the count is logged.

mod file;
mod ring;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

use crate::publish::Publisher;
use file::LogFile;
use ring::Ring;

/// One message.
#[derive(Clone, Debug)]
pub struct Record {
    /// Ms since 1970.
    pub time: u64,
    /// Who said it: `job ID` or `service NAME`.
    pub source: Arc<str>,
    /// How it is meant: [`crate::process::level`].
    pub level: u16,
    /// What.
    pub text: Arc<str>,
}

/// A listener: a stream that records of some levels go to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tap {
    /// The key of the stream.
    pub stream: String,
    /// Which levels; all when empty.
    pub levels: Vec<u16>,
    /// Whose records; everybody's when `None`.
    pub source: Option<Arc<str>>,
}

impl Tap {
    fn wants(&self, record: &Record) -> bool {
        (self.levels.is_empty() || self.levels.contains(&record.level))
            && self.source.as_ref().is_none_or(|source| *source == record.source)
    }
}

/// Most listeners at once.
const TAPS: usize = 256;

/// See the module's text.
#[derive(Debug)]
pub struct Logs {
    file: LogFile,
    ring: Mutex<Ring>,
    taps: Mutex<Vec<Tap>>,
    publisher: Publisher,
}

impl Logs {
    /// Opens the log file in a folder.
    pub fn open(dir: &Path, publisher: Publisher) -> io::Result<Self> {
        std::fs::create_dir_all(dir)?;
        let file = LogFile::open(dir.join("jobs.log"))?;
        Ok(Self { file, ring: Mutex::default(), taps: Mutex::default(), publisher })
    }

    /// Keeps a record and passes it on.
    pub fn put(&self, record: &Record) {
        self.file.put(record);
        for tap in self.taps.lock().iter().filter(|tap| tap.wants(record)) {
            self.publisher.publish(&tap.stream, record);
        }
        self.ring.lock().put(record.clone());
    }

    /// The last `count` records that a listener would get, oldest first.
    pub fn last(&self, tap: &Tap, count: usize) -> Vec<Record> {
        let mut last: Vec<Record> =
            self.ring.lock().newest_first().filter(|record| tap.wants(record)).take(count).cloned().collect();
        last.reverse();
        last
    }

    /// Adds a listener, after the last `backlog` records; false when there are too many.
    pub fn listen(&self, tap: Tap, backlog: usize) -> bool {
        let mut taps = self.taps.lock();
        if taps.contains(&tap) {
            return true;
        }
        if taps.len() >= TAPS {
            return false;
        }
        // While no record can pass, so that none is missed and none comes twice.
        for record in self.last(&tap, backlog) {
            self.publisher.publish(&tap.stream, &record);
        }
        taps.push(tap);
        true
    }

    /// Removes the listeners of a stream; false when there were none.
    pub fn unlisten(&self, stream: &str) -> bool {
        let mut taps = self.taps.lock();
        let before = taps.len();
        taps.retain(|tap| tap.stream != stream);
        taps.len() < before
    }
}

/// Now, in ms since 1970.
pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}
