//! Pushing what a decoded frame holds beyond the bytes asked for into the page cache.
//!
//! A random read decodes a whole frame; the next reads nearby then never reach us. Pushing runs on one thread with a
//! short queue: when it is behind, surplus is dropped, since it is only ever a favour.
//!
//! Storing waits, unkillable, for pages whose contents we have not sent yet, and a daemon that was killed meanwhile would
//! never end. So nothing is pushed where a read waits for a source.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use crossbeam_channel::{Sender, TrySendError, bounded};
use fuser::{INodeNo, Notifier};
use parking_lot::Mutex;

use crate::erofs::Nid;
use crate::filesystem::Filesystem;

/// Surpluses that may wait.
const QUEUE: usize = 32;

struct Surplus {
    ino: INodeNo,
    nid: Nid,
    offset: u64,
    len: u64,
}

/// What reads wait for.
type Unanswered = Mutex<Vec<(INodeNo, Range<u64>)>>;

/// Hands surplus to the pushing thread of one mount.
#[derive(Clone)]
pub struct Pusher {
    queue: Sender<Surplus>,
    notifier: Arc<OnceLock<Notifier>>,
    unanswered: Arc<Unanswered>,
}

/// A read that waits for a source, until it is answered.
pub(super) struct Waiting {
    unanswered: Arc<Unanswered>,
    read: (INodeNo, Range<u64>),
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut unanswered = self.unanswered.lock();
        if let Some(at) = unanswered.iter().position(|read| *read == self.read) {
            unanswered.swap_remove(at);
        }
    }
}

impl Pusher {
    /// Starts the thread; it ends when the last clone is gone.
    pub fn start(fs: Arc<Filesystem>) -> std::io::Result<Self> {
        let (queue, jobs) = bounded::<Surplus>(QUEUE);
        let notifier = Arc::new(OnceLock::<Notifier>::new());
        let unanswered = Arc::<Unanswered>::default();
        let (target, avoid) = (notifier.clone(), unanswered.clone());
        std::thread::Builder::new().name("g8-push".into()).spawn(move || {
            for job in jobs {
                if let Some(notifier) = target.get() {
                    push(&fs, notifier, &avoid, &job);
                }
            }
        })?;
        Ok(Pusher { queue, notifier, unanswered })
    }

    /// Says where to push to, once the session is there.
    pub fn connect(&self, notifier: Notifier) {
        // Set once per mount; a second session would be a bug that only costs speed.
        let _ = self.notifier.set(notifier);
    }

    /// A read has to wait; the result is dropped when it is answered.
    pub(super) fn waiting(&self, ino: INodeNo, offset: u64, len: u32) -> Waiting {
        let read = (ino, offset..offset + u64::from(len));
        self.unanswered.lock().push(read.clone());
        Waiting { unanswered: self.unanswered.clone(), read }
    }

    /// `len` bytes at `offset` of an inode were just answered from frames that hold more of it.
    pub(super) fn surplus(&self, ino: INodeNo, nid: Nid, offset: u64, len: u64) {
        match self.queue.try_send(Surplus { ino, nid, offset, len }) {
            Ok(()) | Err(TrySendError::Full(_)) | Err(TrySendError::Disconnected(_)) => {}
        }
    }
}

/// Stores the rest of the first and of the last frame that an answer touched.
fn push(fs: &Filesystem, notifier: &Notifier, unanswered: &Unanswered, job: &Surplus) {
    if job.len == 0 {
        return;
    }
    let end = job.offset + job.len;
    let before = fs.frame_range(job.nid, job.offset).map(|r| r.start..job.offset);
    let after = fs.frame_range(job.nid, end - 1).map(|r| end..r.end);
    for range in [before, after].into_iter().flatten() {
        // Only whole pages can be stored, and one that is partly asked for is there already.
        let start = range.start.next_multiple_of(4096);
        if start >= range.end {
            continue;
        }
        let overlaps = |(ino, read): &(INodeNo, Range<u64>)| {
            *ino == job.ino && read.start < range.end && start < read.end
        };
        if unanswered.lock().iter().any(overlaps) {
            continue;
        }
        let Ok(Some(contents)) = fs.read_now(job.nid, start, (range.end - start) as u32) else { continue };
        if let Err(e) = notifier.store(job.ino, start, contents.as_ref()) {
            // ENOENT: the kernel has forgotten the inode. Anything else ends with the mount.
            tracing::trace!(error = %e, "surplus not stored");
        }
    }
}
