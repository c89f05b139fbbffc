//! The log file: a thread writes it, so that a slow disk delays nobody. Four files of 64 MiB, the oldest goes.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use super::Record;

/// Bytes after which a file is followed by another.
const FILE_MAX: u64 = 64 << 20;
/// Older files that stay.
const OLDER: u32 = 3;
/// Records that wait for the disk.
const WAITING: usize = 4096;
/// How long what was written may wait in memory.
const FLUSH: Duration = Duration::from_millis(200);

/// The sending end.
#[derive(Debug)]
pub struct LogFile {
    records: SyncSender<Record>,
    dropped: Arc<AtomicU64>,
}

impl LogFile {
    /// Opens it, and starts its thread.
    pub fn open(path: PathBuf) -> io::Result<Self> {
        let writer = Writer::open(path)?;
        let (records, queue) = sync_channel(WAITING);
        let dropped = Arc::new(AtomicU64::new(0));
        let count = dropped.clone();
        std::thread::Builder::new().name("log".into()).spawn(move || writer.run(&queue, &count))?;
        Ok(Self { records, dropped })
    }

    /// Writes a record, or counts it as dropped when the disk is behind.
    pub fn put(&self, record: &Record) {
        if self.records.try_send(record.clone()).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A record as a line of JSON.
#[derive(serde::Serialize)]
struct Line<'a> {
    time: u64,
    source: &'a str,
    level: u16,
    text: &'a str,
}

struct Writer {
    path: PathBuf,
    file: BufWriter<File>,
    bytes: u64,
}

impl Writer {
    fn open(path: PathBuf) -> io::Result<Self> {
        let mut file = File::options();
        file.create(true).append(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
        let file = file.open(&path)?;
        let bytes = file.metadata()?.len();
        Ok(Self { path, file: BufWriter::with_capacity(64 << 10, file), bytes })
    }

    fn run(mut self, queue: &Receiver<Record>, dropped: &AtomicU64) {
        let mut failing = false;
        loop {
            let done = match queue.recv_timeout(FLUSH) {
                Ok(record) => self.write(&record),
                Err(RecvTimeoutError::Timeout) => self.file.flush(),
                Err(RecvTimeoutError::Disconnected) => {
                    let _ = self.file.flush();
                    return;
                }
            };
            let lost = dropped.swap(0, Ordering::Relaxed);
            if lost > 0 {
                tracing::warn!("the log's disk is behind: {lost} records of jobs are not in the file");
            }
            match done {
                Err(ref e) if !failing => tracing::warn!("cannot write {}: {e}", self.path.display()),
                Ok(()) | Err(_) => {}
            }
            failing = done.is_err();
        }
    }

    fn write(&mut self, record: &Record) -> io::Result<()> {
        let Record { time, source, level, text } = record;
        let mut line = serde_json::to_vec(&Line { time: *time, source, level: *level, text })?;
        line.push(b'\n');
        if self.bytes > 0 && self.bytes + line.len() as u64 > FILE_MAX {
            self.rotate()?;
        }
        self.bytes += line.len() as u64;
        self.file.write_all(&line)
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.file.flush()?;
        // Before anything is moved: what fails here is tried again with the next record.
        let new = self.path.with_extension("log.new");
        let next = Self::open(new.clone())?;
        for n in (0..OLDER).rev() {
            match std::fs::rename(older(&self.path, n), older(&self.path, n + 1)) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
        std::fs::rename(new, &self.path)?;
        *self = Self { path: std::mem::take(&mut self.path), ..next };
        Ok(())
    }
}

fn older(path: &Path, n: u32) -> PathBuf {
    match n {
        0 => path.into(),
        n => path.with_extension(format!("log.{n}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_cannot_be_followed_is_so_later() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("jobs.log");
        let mut writer = Writer::open(path.clone()).unwrap();
        let record = Record { time: 0, source: "job x".into(), level: 1, text: "first".into() };
        writer.write(&record).unwrap();
        std::fs::create_dir(dir.path().join("jobs.log.new")).unwrap();
        writer.bytes = FILE_MAX;
        writer.write(&record).unwrap_err();
        writer.write(&record).unwrap_err();
        std::fs::remove_dir(dir.path().join("jobs.log.new")).unwrap();
        writer.write(&Record { text: "second".into(), ..record }).unwrap();
        writer.file.flush().unwrap();
        assert!(std::fs::read_to_string(&path).unwrap().contains("second"));
        assert!(std::fs::read_to_string(older(&path, 1)).unwrap().contains("first"));
        assert!(!older(&path, 2).exists());
    }

    #[test]
    fn a_full_file_is_followed_by_another_and_three_older_stay() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = Writer::open(dir.path().join("jobs.log")).unwrap();
        let text: Arc<str> = "x".repeat(1 << 20).into();
        for i in 0..330u64 {
            let record = Record { time: i, source: "job x".into(), level: 1, text: text.clone() };
            writer.write(&record).unwrap();
        }
        writer.file.flush().unwrap();
        let mut sizes: Vec<_> = std::fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap())
            .map(|entry| (entry.file_name().into_string().unwrap(), entry.metadata().unwrap().len()))
            .collect();
        sizes.sort();
        let names: Vec<_> = sizes.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["jobs.log", "jobs.log.1", "jobs.log.2", "jobs.log.3"]);
        assert!(sizes.iter().all(|(_, bytes)| *bytes <= FILE_MAX));
    }
}
