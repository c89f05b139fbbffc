//! What comes into the database, and what stays: puts, and second chances.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use rocksdb::ErrorKind;

use super::super::database::{Database, write_buffer};
use super::super::pending::Offered;
use super::super::value::{self, Entry, EntryKey};
use super::{Opened, Store, count};
use crate::block::VerifiedBlock;
use crate::desc::{MAX_FRAMES, MAX_STORED};
use crate::id::BlockId;
use crate::memory::FrameKey;

/// A whole block out of the database, proven.
pub(super) struct Kept {
    pub(super) stored: Vec<u8>,
    /// Stored lengths of its frames.
    pub(super) frames: Vec<u32>,
    /// The sequence number at which it was put.
    pub(super) sequence: u64,
}

impl Store {
    /// Lets a proven block wait until it is put; `false` where no more may wait, or none would be taken.
    pub(in crate::disk) fn put_soon(&self, block: &VerifiedBlock, frames: &Arc<[u32]>) -> bool {
        if !self.is_well() {
            return false;
        }
        match self.pending.offer(block, frames) {
            Offered::Ring => self.duties.note_pending(),
            Offered::Waits => {}
            Offered::Known => return true,
            Offered::Full => return false,
        }
        // Here, so that who asks finds it counted from when it is here.
        count(&self.counts.puts);
        true
    }

    /// Puts the block that waits longest, if the database drops old ones as fast as new ones come.
    pub(in crate::disk) fn put_first(&self) {
        let _putting = self.putting.lock();
        if self.is_well() && self.opened.read().as_ref().is_some_and(|opened| self.lags(opened)) {
            return self.pending.pause();
        }
        self.put_next();
    }

    /// Puts those that wait now.
    pub(super) fn put_all(&self) {
        // Who reads meanwhile may bring more, without end.
        for _ in 0..self.pending.len() {
            let _putting = self.putting.lock();
            self.put_next();
        }
    }

    /// With `putting` held.
    fn put_next(&self) {
        if let Some(first) = self.pending.first() {
            self.put_one(&first.block, &first.frames, true);
            self.pending.done();
        }
    }

    /// Keeps a proven block if there is room and the disk does not have to be waited for, cut as `frames` say if they add up,
    /// else as one frame.
    pub(in crate::disk) fn put(&self, block: &VerifiedBlock, frames: &[u32]) {
        self.put_one(block, frames, false);
    }

    fn put_one(&self, block: &VerifiedBlock, frames: &[u32], waits: bool) {
        let stored = block.bytes();
        let whole = [stored.len() as u32];
        let total: u64 = frames.iter().map(|&len| u64::from(len)).sum();
        let fits = total == stored.len() as u64 && !frames.is_empty() && frames.len() <= MAX_FRAMES;
        let frames = if fits { frames } else { &whole };
        let opened = self.opened.read();
        let Some(opened) = opened.as_ref() else { return count(&self.counts.skipped) };
        if !self.has_room(opened, value::overhead(frames.len()) + stored.len()) {
            return count(&self.counts.skipped);
        }
        self.write_block(opened, block.id(), frames, stored, waits);
    }

    /// Puts a frame again that was hit when about to fall out.
    pub(super) fn renew(&self, opened: &Opened, entry: &Entry<'_>, hit: FrameKey) {
        if self.earned(opened, hit, entry.total as usize, entry.sequence()) {
            let renewed = entry.renewed(opened.database.sequence());
            let key = EntryKey { id: hit.id, index: hit.span.index };
            self.write(opened, renewed.len(), false, |put| put(key, &renewed));
        }
    }

    /// The same for all frames of a block.
    pub(super) fn renew_block(&self, opened: &Opened, kept: &Kept, hit: FrameKey) {
        if self.earned(opened, hit, kept.stored.len(), kept.sequence) {
            self.write_block(opened, hit.id, &kept.frames, &kept.stored, false);
        }
    }

    fn earned(&self, opened: &Opened, hit: FrameKey, block_len: usize, sequence: u64) -> bool {
        let horizon = self.horizon.read(|| self.measure_horizon(&opened.database));
        let age = opened.database.sequence().saturating_sub(sequence);
        let earned = self.chance.earned(hit, block_len, age, horizon) && self.has_room(opened, block_len);
        if earned {
            count(&self.counts.second_chances);
        }
        earned
    }

    /// From which age on, in entries, an entry is in the oldest quarter of what the budget holds.
    fn measure_horizon(&self, database: &Database) -> u64 {
        let (entries, bytes, budget) = (database.entries(), database.bytes(), self.budget.load(Relaxed));
        // Nothing falls out of a cache that is not full.
        if bytes < budget / 4 * 3 {
            return u64::MAX;
        }
        let held = u128::from(entries) * u128::from(budget) / u128::from(bytes.max(1));
        u64::try_from(held / 4 * 3).unwrap_or(u64::MAX)
    }

    fn has_room(&self, opened: &Opened, len: usize) -> bool {
        self.is_well() && len as u64 <= self.budget.load(Relaxed) && !self.lags(opened)
    }

    /// Whether files that are beyond the budget are still there: RocksDB drops them in the background. What comes meanwhile
    /// is not kept, since a budget is one, or waits.
    fn lags(&self, opened: &Opened) -> bool {
        let budget = self.budget.load(Relaxed);
        opened.database.bytes() + MAX_STORED as u64 > budget + 2 * write_buffer(budget)
    }

    /// Whether it would keep a small block now.
    pub(in crate::disk) fn takes_blocks(&self) -> bool {
        self.opened.read().is_some() && self.is_well()
    }

    /// Neither sick nor short of space on its file system.
    fn is_well(&self) -> bool {
        !self.sick.load(Relaxed) && self.free.read(|| self.home.free_bytes()) >= self.free_floor
    }

    fn write_block(&self, opened: &Opened, id: BlockId, frames: &[u32], stored: &[u8], waits: bool) {
        let now = opened.database.sequence();
        let len = value::overhead(frames.len()) + stored.len();
        self.write(opened, len, waits, |put| value::encode(&opened.key, id, now, frames, stored, put));
    }

    fn write(
        &self,
        opened: &Opened,
        len: usize,
        waits: bool,
        fill: impl FnOnce(&mut dyn FnMut(EntryKey, &[u8])),
    ) {
        match opened.database.put(len, waits, fill) {
            Ok(()) => {
                if !waits {
                    count(&self.counts.puts);
                }
                self.duties.note_put();
            }
            // It would have waited for the disk.
            Err(error) if error.kind() == ErrorKind::Incomplete => count(&self.counts.skipped),
            Err(error) => self.put_failed(&error),
        }
    }
}
