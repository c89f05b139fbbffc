//! The log file. A thread writes it: four files of 64 MiB at most, the oldest goes.
//!
//! No line is missing while the disk takes them. Who reads a pipe first takes [`Room`] for it, which comes back when that
//! is written: a job that prints faster than the disk writes waits at its own pipe, and nothing piles up here. A disk
//! that refuses (it is full), or stands still, holds nobody up: what it does not take is dropped and counted, and
//! the count is a line of the file as soon as it takes lines again.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::{Record, now_ms};
use crate::process::level;

/// The newest file.
const NAME: &str = "jobs.log";
/// Bytes after which a file is followed by another.
const FILE_MAX: u64 = 64 << 20;
/// Older files that stay.
const OLDER: u32 = 3;
/// Bytes of output that wait for the disk. As lines of JSON they can be many times more, when they are empty lines.
const WAITING: usize = 1 << 20;
/// What one reader takes of that: it reads no more at once.
pub const CHUNK: usize = 16 << 10;
/// How long lines are gathered, unless there are many.
const GATHER: Duration = Duration::from_millis(50);
/// A disk that took nothing for so long stands still.
const STILL: Duration = Duration::from_secs(10);
/// Where the last line is looked for.
const LAST_LINE: u64 = 8 << 20;

/// The sending end.
#[derive(Debug)]
pub struct LogFile {
    shared: Arc<Shared>,
}

/// Room for [`CHUNK`] bytes of output; or none, when the disk stands still.
#[derive(Debug)]
pub struct Room(Option<OwnedSemaphorePermit>);

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
    room: Arc<Semaphore>,
    still: AtomicBool,
}

#[derive(Debug, Default)]
struct Queue {
    batches: Vec<Batch>,
    flushes: Vec<oneshot::Sender<()>>,
    lost: u64,
    closed: bool,
}

/// Lines of one reader, which stay together.
#[derive(Debug)]
struct Batch {
    bytes: Vec<u8>,
    lines: u64,
    _room: OwnedSemaphorePermit,
}

impl LogFile {
    /// Opens that of a folder, and starts its thread.
    pub fn open(dir: &Path) -> io::Result<Self> {
        let writer = Writer::open(dir.join(NAME))?;
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            wake: Condvar::new(),
            room: Arc::new(Semaphore::new(WAITING / CHUNK)),
            still: AtomicBool::new(false),
        });
        let its = shared.clone();
        std::thread::Builder::new().name("log".into()).spawn(move || writer.run(&its))?;
        Ok(Self { shared })
    }

    /// Waits for room, in turn.
    pub async fn room(&self) -> Room {
        let semaphore = || self.shared.room.clone();
        if let Ok(permit) = semaphore().try_acquire_owned() {
            return Room(Some(permit));
        }
        if self.shared.still.load(Ordering::Relaxed) {
            return Room(None);
        }
        match tokio::time::timeout(STILL, semaphore().acquire_owned()).await {
            Ok(permit) => Room(permit.ok()),
            Err(_) => {
                self.shared.stands_still();
                Room(None)
            }
        }
    }

    /// Writes records, or counts them as lost where there is no room for them.
    pub fn put(&self, records: &[Record], room: Room) {
        let lines = records.len() as u64;
        let Some(room) = room.0.filter(|_| lines > 0) else {
            self.shared.queue.lock().lost += lines;
            return;
        };
        let mut bytes = Vec::with_capacity(records.iter().map(|record| record.text.len() + 96).sum());
        for record in records {
            // A number, a text and another number are always JSON.
            let _ = serde_json::to_writer(&mut bytes, &Line::of(record));
            bytes.push(b'\n');
        }
        let mut queue = self.shared.queue.lock();
        queue.batches.push(Batch { bytes, lines, _room: room });
        if queue.batches.len() == 1 || queue.is_pressed() {
            self.shared.wake.notify_one();
        }
    }

    /// Waits until all that was put before is written, or lost; not for a disk that stands still.
    pub async fn flush(&self) {
        if self.shared.still.load(Ordering::Relaxed) {
            return;
        }
        let (done, flushed) = oneshot::channel();
        self.shared.queue.lock().flushes.push(done);
        self.shared.wake.notify_one();
        if tokio::time::timeout(STILL, flushed).await.is_err() {
            self.shared.stands_still();
        }
    }
}

impl Drop for LogFile {
    fn drop(&mut self) {
        self.shared.queue.lock().closed = true;
        self.shared.wake.notify_one();
    }
}

impl Queue {
    fn is_empty(&self) -> bool {
        self.batches.is_empty() && self.flushes.is_empty() && !self.closed
    }

    /// Whether somebody waits, or soon will.
    fn is_pressed(&self) -> bool {
        self.batches.len() >= WAITING / CHUNK / 4 || !self.flushes.is_empty() || self.closed
    }
}

impl Shared {
    fn stands_still(&self) {
        if !self.still.swap(true, Ordering::Relaxed) {
            tracing::error!("the log's disk stands still: lines are dropped until it moves");
        }
    }

    /// Waits for something to do, and a little longer for more of it.
    fn take(&self) -> Queue {
        let mut queue = self.queue.lock();
        self.wake.wait_while(&mut queue, |queue| queue.is_empty());
        self.wake.wait_while_for(&mut queue, |queue| !queue.is_pressed(), GATHER);
        let closed = queue.closed;
        let taken = std::mem::take(&mut *queue);
        queue.closed = closed;
        taken
    }
}

/// A record as a line of JSON.
#[derive(serde::Serialize)]
struct Line<'a> {
    time: u64,
    source: &'a str,
    level: u16,
    text: &'a str,
    #[serde(flatten)]
    place: Option<super::Place>,
}

impl<'a> Line<'a> {
    fn of(record: &'a Record) -> Self {
        let Record { time, source, level, text, place } = record;
        Self { time: *time, source, level: *level, text, place: *place }
    }
}

struct Writer {
    path: PathBuf,
    file: File,
    bytes: u64,
    /// Lines that are missing at the end of the file.
    lost: u64,
    why: String,
}

impl Writer {
    fn open(path: PathBuf) -> io::Result<Self> {
        let mut file = File::options();
        file.create(true).append(true).read(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
        let mut file = file.open(&path)?;
        let bytes = whole_lines(&mut file)?;
        file.set_len(bytes)?;
        Ok(Self { path, file, bytes, lost: 0, why: String::new() })
    }

    fn run(mut self, shared: &Shared) {
        loop {
            let Queue { batches, flushes, lost, closed } = shared.take();
            if lost > 0 {
                self.lose(lost, "the disk stood still");
            }
            for batch in batches {
                match self.write(&batch.bytes) {
                    Ok(()) => shared.still.store(false, Ordering::Relaxed),
                    Err(e) => self.lose(batch.lines, &e.to_string()),
                }
            }
            // Who waited may have given up.
            for done in flushes {
                let _ = done.send(());
            }
            if closed {
                return;
            }
        }
    }

    fn lose(&mut self, lines: u64, why: &str) {
        if self.lost == 0 {
            tracing::error!("{} is not written, lines are missing: {why}", self.path.display());
        }
        self.lost += lines;
        self.why = why.into();
    }

    /// Writes lines, all of them or none.
    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        if self.bytes > 0 && self.bytes + lines.len() as u64 > FILE_MAX {
            self.rotate()?;
        }
        let mut gap = Vec::new();
        if self.lost > 0 {
            let text = format!("{} lines are missing here: {}", self.lost, self.why);
            let (time, source, level) = (now_ms(), "core0", level::WARNING);
            serde_json::to_writer(&mut gap, &Line { time, source, level, text: &text, place: None })?;
            gap.push(b'\n');
        }
        if let Err(e) = self.file.write_all(&gap).and_then(|()| self.file.write_all(lines)) {
            // Half a line would spoil the next one. Where that fails too, the next start mends it.
            let _ = self.file.set_len(self.bytes);
            return Err(e);
        }
        self.bytes += (gap.len() + lines.len()) as u64;
        if self.lost > 0 {
            tracing::warn!("{} is written again: {} lines are missing", self.path.display(), self.lost);
            self.lost = 0;
        }
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        // Before anything is moved: what fails here is tried again with the next lines.
        let new = self.path.with_extension("log.new");
        let next = Self::open(new.clone())?;
        for n in (0..OLDER).rev() {
            match std::fs::rename(older(&self.path, n), older(&self.path, n + 1)) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
        std::fs::rename(new, &self.path)?;
        (self.file, self.bytes) = (next.file, next.bytes);
        Ok(())
    }
}

/// Where the last whole line of a file ends: a manager that was killed may have left half of one.
fn whole_lines(file: &mut File) -> io::Result<u64> {
    let bytes = file.metadata()?.len();
    let from = bytes.saturating_sub(LAST_LINE);
    file.seek(SeekFrom::Start(from))?;
    let mut last = Vec::new();
    file.take(LAST_LINE).read_to_end(&mut last)?;
    Ok(last.iter().rposition(|&byte| byte == b'\n').map_or(from, |end| from + end as u64 + 1))
}

/// The last places that lines of these sources have in a log, for standard output and standard error. Older lines than those
/// since a time are of an earlier process.
pub fn last_places(dir: &Path, since: HashMap<String, u64>) -> io::Result<HashMap<String, [u64; 2]>> {
    #[derive(serde::Deserialize)]
    struct Placed {
        time: u64,
        #[serde(default)]
        out: u64,
        #[serde(default)]
        err: u64,
    }
    let mut places: HashMap<String, [u64; 2]> = HashMap::new();
    for n in (0..=OLDER).rev() {
        let file = match File::open(older(&dir.join(NAME), n)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            other => other?,
        };
        for line in BufReader::with_capacity(1 << 20, file).split(b'\n') {
            let line = line?;
            let Some((source, started)) = source(&line).and_then(|source| since.get_key_value(source)) else {
                continue;
            };
            let Ok(Placed { time, out, err }) = serde_json::from_slice(&line) else { continue };
            if time >= *started {
                let place = places.entry(source.clone()).or_default();
                *place = [place[0].max(out), place[1].max(err)];
            }
        }
    }
    Ok(places)
}

/// Whose line it is. Sources have no letter that JSON writes otherwise, and the field is the second.
fn source(line: &[u8]) -> Option<&str> {
    let line = line.strip_prefix(b"{\"time\":")?;
    let digits = line.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let rest = line[digits..].strip_prefix(b",\"source\":\"")?;
    std::str::from_utf8(rest.split(|&byte| byte == b'"').next()?).ok()
}

fn older(path: &Path, n: u32) -> PathBuf {
    match n {
        0 => path.into(),
        n => path.with_extension(format!("log.{n}")),
    }
}

#[cfg(test)]
mod tests;
