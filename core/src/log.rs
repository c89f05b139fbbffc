//! What jobs, services and the node say: a bounded ring in memory, a rotated file, and streams for who listens.
//!
//! The file has every line, within what its rotation keeps: who prints faster than it is written waits for it ([`Room`]),
//! as for any reader of a pipe. The ring forgets the oldest; streams are dropped and counted where redis is behind.

mod file;
mod ring;

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::publish::Publisher;
use file::LogFile;
pub use file::{CHUNK, Room};
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
    /// Where in the output of a process it ends.
    pub place: Option<Place>,
}

/// A place in the output of a process: the bytes of that stream up to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// In its standard output.
    Out(u64),
    /// In its standard error.
    Err(u64),
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
    dir: PathBuf,
    file: LogFile,
    ring: Mutex<Ring>,
    taps: Mutex<Vec<Tap>>,
    publisher: Publisher,
}

impl Logs {
    /// Opens the log file in a folder.
    pub fn open(dir: &Path, publisher: Publisher) -> io::Result<Self> {
        std::fs::create_dir_all(dir)?;
        let file = LogFile::open(dir)?;
        Ok(Self { dir: dir.into(), file, ring: Mutex::default(), taps: Mutex::default(), publisher })
    }

    /// Waits until the file takes [`CHUNK`] bytes more.
    pub async fn room(&self) -> Room {
        self.file.room().await
    }

    /// Keeps records and passes them on.
    pub fn put(&self, records: Vec<Record>, room: Room) {
        self.file.put(&records, room);
        let taps = self.taps.lock();
        for tap in &*taps {
            for record in records.iter().filter(|record| tap.wants(record)) {
                self.publisher.publish(&tap.stream, record);
            }
        }
        // While the taps are held: who begins to listen gets from the ring what was here before, and the rest.
        let mut ring = self.ring.lock();
        records.into_iter().for_each(|record| ring.put(record));
    }

    /// The last places in the file of lines of these sources, since a time each.
    pub async fn last_places(&self, since: HashMap<String, u64>) -> io::Result<HashMap<String, [u64; 2]>> {
        let dir = self.dir.clone();
        let places = tokio::task::spawn_blocking(move || file::last_places(&dir, since)).await;
        places.map_err(io::Error::other).flatten()
    }

    /// Waits until the file has all that was put before.
    pub async fn flush(&self) {
        self.file.flush().await;
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
