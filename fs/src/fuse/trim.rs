//! Dropping what the kernel has read of `small` from the page cache of FUSE: EROFS keeps a copy of its own, and memory
//! is not to be paid twice.
//!
//! A range goes when nothing was read in it for a few seconds, so that read-ahead still finds what it brought. Notes
//! that do not fit into the queue are dropped: those pages then stay until the kernel wants them back.
//!
//! Not by FUSE_NOTIFY_INVAL_INODE: that waits, unkillable, for pages whose contents nobody sends, and a daemon that was
//! killed meanwhile would never end.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};
/// Notes that may wait.
const QUEUE: usize = 1024;
/// How long a range is left alone after it was read.
const QUIET: Duration = Duration::from_secs(3);
/// Ranges are kept apart and dropped in pieces of this size.
const CHUNK: u64 = 2 << 20;

/// Drops ranges of `small` from the page cache, and never waits for a page.
type Forget = Box<dyn Fn(&[Range<u64>]) -> io::Result<()> + Send + Sync>;

/// Tells the trimming thread of one mount what was read; the thread ends with the last clone.
#[derive(Clone)]
pub struct Trimmer {
    notes: Sender<u64>,
    forget: Arc<OnceLock<Forget>>,
}

impl Trimmer {
    /// Starts the thread.
    pub fn start() -> std::io::Result<Self> {
        let (notes, noted) = bounded(QUEUE);
        let forget = Arc::new(OnceLock::new());
        let target = forget.clone();
        std::thread::Builder::new().name("g8-trim".into()).spawn(move || trim(&noted, &target))?;
        Ok(Trimmer { notes, forget })
    }

    /// Says how, once the mount is there.
    pub fn connect(&self, forget: impl Fn(&[Range<u64>]) -> io::Result<()> + Send + Sync + 'static) {
        // Set once per mount; a second one would be a bug that only costs memory.
        let _ = self.forget.set(Box::new(forget));
    }

    /// `len` bytes at `offset` of `small` are being read.
    pub(super) fn note(&self, offset: u64, len: u32) {
        let last = (offset + u64::from(len)).saturating_sub(1) / CHUNK;
        for chunk in offset / CHUNK..=last {
            match self.notes.try_send(chunk) {
                Ok(()) | Err(TrySendError::Full(_)) | Err(TrySendError::Disconnected(_)) => {}
            }
        }
    }
}

fn trim(noted: &Receiver<u64>, target: &OnceLock<Forget>) {
    // When each chunk was read last, and when to look again.
    let mut read: BTreeMap<u64, Instant> = BTreeMap::new();
    let mut wake: Option<Instant> = None;
    loop {
        let note = match wake {
            None => noted.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(at) => noted.recv_deadline(at),
        };
        match note {
            Ok(chunk) => {
                read.insert(chunk, Instant::now());
                wake.get_or_insert_with(|| Instant::now() + QUIET);
            }
            Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {
                let now = Instant::now();
                let quiet = read.extract_if(.., |_, last| now.duration_since(*last) >= QUIET);
                let ranges: Vec<_> = quiet.map(|(chunk, _)| chunk * CHUNK..(chunk + 1) * CHUNK).collect();
                forget(target, &ranges);
                wake = read.values().min().map(|oldest| *oldest + QUIET);
            }
        }
    }
}

fn forget(target: &OnceLock<Forget>, ranges: &[Range<u64>]) {
    let Some(forget) = target.get() else { return };
    if let Err(error) = forget(ranges) {
        // ENOTCONN: the mount has ended. The pages go with it.
        tracing::trace!(%error, "ranges of small stay cached twice");
    }
}
