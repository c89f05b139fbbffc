//! Blocks that their readers have and the database has not yet.
//!
//! To put a block costs as much as to prove it, and nobody who reads has anything of it. So it waits here, found by look-ups as if
//! it were on the disk, until no more come for a moment or too many wait. A crash loses what it would have lost in the
//! write buffer of the database, which is filled later for it. Where no more may wait, who brings a block puts it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::block::VerifiedBlock;
use crate::id::BlockId;

/// When no block came for so long, those that wait are put: between two files that a program reads passes less.
const QUIET: Duration = Duration::from_millis(50);
/// How long the database is left alone that drops its oldest files more slowly than others come.
const LAG: Duration = Duration::from_millis(20);

/// A block and how its frames cut it.
#[derive(Clone)]
pub(super) struct PendingBlock {
    pub(super) block: VerifiedBlock,
    pub(super) frames: Arc<[u32]>,
}

/// The queue, in the order in which they came.
pub(super) struct Pending {
    queue: Mutex<Queue>,
    /// Most look-ups come when nothing waits, and need no lock to see it.
    is_empty: AtomicBool,
    most: u64,
}

#[derive(Default)]
struct Queue {
    blocks: HashMap<BlockId, PendingBlock>,
    order: VecDeque<BlockId>,
    bytes: u64,
    entries: u64,
    last: Option<Instant>,
    not_before: Option<Instant>,
}

/// What became of a block that was offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Offered {
    /// It waits.
    Waits,
    /// It waits, and whoever puts them has to be told: it is the first one, or one too many.
    Ring,
    /// It waits already.
    Known,
    /// No more may wait.
    Full,
}

impl Pending {
    /// A queue of at most so many bytes.
    pub(super) fn new(most: u64) -> Pending {
        Pending { queue: Mutex::default(), is_empty: AtomicBool::new(true), most }
    }

    /// Lets a block wait, if there is room.
    pub(super) fn offer(&self, block: &VerifiedBlock, frames: &Arc<[u32]>) -> Offered {
        let len = block.bytes().len() as u64;
        let mut queue = self.queue.lock();
        if queue.blocks.contains_key(&block.id()) {
            return Offered::Known;
        }
        if queue.bytes + len > self.most {
            return Offered::Full;
        }
        let many = |bytes| bytes > self.most / 4 * 3;
        let ring = queue.order.is_empty() || (many(queue.bytes + len) && !many(queue.bytes));
        queue.bytes += len;
        queue.entries += entries(frames);
        queue.last = Some(Instant::now());
        queue.order.push_back(block.id());
        queue.blocks.insert(block.id(), PendingBlock { block: block.clone(), frames: Arc::clone(frames) });
        self.is_empty.store(false, Relaxed);
        if ring { Offered::Ring } else { Offered::Waits }
    }

    /// A block that waits.
    pub(super) fn get(&self, id: &BlockId) -> Option<VerifiedBlock> {
        if self.is_empty.load(Relaxed) {
            return None;
        }
        self.queue.lock().blocks.get(id).map(|pending| pending.block.clone())
    }

    /// The one that came first. It stays until it is [`Pending::done`]: it must be found somewhere.
    pub(super) fn first(&self) -> Option<PendingBlock> {
        let queue = self.queue.lock();
        queue.blocks.get(queue.order.front()?).cloned()
    }

    /// The first one is in the database, or never will be.
    pub(super) fn done(&self) {
        let mut queue = self.queue.lock();
        let first = queue.order.pop_front().and_then(|id| queue.blocks.remove(&id));
        if let Some(first) = &first {
            queue.bytes -= first.block.bytes().len() as u64;
            queue.entries -= entries(&first.frames);
        }
        self.is_empty.store(queue.order.is_empty(), Relaxed);
        drop(queue);
        drop(first);
    }

    /// When the first one is to be put; none when none waits.
    pub(super) fn due(&self) -> Option<Instant> {
        let queue = self.queue.lock();
        let last = queue.last.filter(|_| !queue.order.is_empty())?;
        let due = if queue.bytes > self.most / 4 * 3 { last } else { last + QUIET };
        Some(queue.not_before.map_or(due, |not_before| not_before.max(due)))
    }

    /// The database cannot take the first one now.
    pub(super) fn pause(&self) {
        self.queue.lock().not_before = Some(Instant::now() + LAG);
    }

    /// Forgets them all.
    pub(super) fn clear(&self) {
        let gone = std::mem::take(&mut *self.queue.lock());
        self.is_empty.store(true, Relaxed);
        drop(gone);
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.queue.lock().order.len()
    }

    /// What they will be in the database: frames, and objects.
    pub(super) fn entries(&self) -> u64 {
        self.queue.lock().entries
    }

    /// Bytes that wait.
    pub(super) fn bytes(&self) -> u64 {
        self.queue.lock().bytes
    }
}

/// What a block is in the database: one whose frames nobody knows is one entry.
fn entries(frames: &[u32]) -> u64 {
    frames.len().max(1) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::StoredBlock;
    use crate::id::Codec;

    fn block(byte: u8) -> VerifiedBlock {
        let bytes = vec![byte; 100];
        StoredBlock::new(BlockId::of(Codec::Raw, &bytes), bytes).unwrap().verify().unwrap()
    }

    #[test]
    fn what_waits_is_found_until_it_is_done_and_no_more_wait_than_may() {
        let (pending, frames) = (Pending::new(400), Arc::from([100]));
        let blocks: Vec<_> = (0..5).map(block).collect();
        let offered: Vec<_> = blocks.iter().map(|block| pending.offer(block, &frames)).collect();
        use Offered::{Full, Known, Ring, Waits};
        assert_eq!(offered, [Ring, Waits, Waits, Ring, Full]);
        assert_eq!(pending.offer(&blocks[0], &frames), Known, "once is enough");
        for (index, block) in blocks[..4].iter().enumerate() {
            let left = 4 - index as u64;
            assert_eq!((pending.bytes(), pending.entries(), pending.len() as u64), (100 * left, left, left));
            assert_eq!(pending.first().map(|first| first.block.id()), Some(block.id()));
            assert!(pending.get(&block.id()).is_some());
            pending.done();
            assert!(pending.get(&block.id()).is_none());
        }
        assert!(pending.first().is_none() && pending.due().is_none());
        assert_eq!(pending.offer(&blocks[4], &frames), Ring);
    }

    #[test]
    fn few_wait_until_it_is_quiet_and_many_do_not() {
        let (pending, frames) = (Pending::new(400), Arc::from([100]));
        let began = Instant::now();
        for byte in 0..3 {
            pending.offer(&block(byte), &frames);
        }
        assert!(pending.due().is_some_and(|due| due >= began + QUIET));
        pending.offer(&block(3), &frames);
        assert!(pending.due().is_some_and(|due| due <= Instant::now()));
        pending.clear();
        assert_eq!((pending.due(), pending.bytes()), (None, 0));
    }
}
