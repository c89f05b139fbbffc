//! What comes into the database, and what stays: puts, and second chances.

use std::sync::atomic::Ordering::Relaxed;

use rocksdb::ErrorKind;

use super::super::database::{Database, write_buffer};
use super::super::value::{self, Entry, EntryKey};
use super::{Opened, Store, count};
use crate::block::VerifiedBlock;
use crate::desc::MAX_FRAMES;
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
    /// Keeps a proven block if there is room, cut as `frames` say if they add up, else as one frame.
    pub(in crate::disk) fn put(&self, block: &VerifiedBlock, frames: &[u32]) {
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
        self.write_block(opened, block.id(), frames, stored);
    }

    /// Puts a frame again that was hit when about to fall out.
    pub(super) fn renew(&self, opened: &Opened, entry: &Entry<'_>, hit: FrameKey) {
        if self.earned(opened, hit, entry.total as usize, entry.sequence()) {
            let renewed = entry.renewed(opened.database.sequence());
            let key = EntryKey { id: hit.id, index: hit.span.index };
            self.write(opened, renewed.len(), |put| put(key, &renewed));
        }
    }

    /// The same for all frames of a block.
    pub(super) fn renew_block(&self, opened: &Opened, kept: &Kept, hit: FrameKey) {
        if self.earned(opened, hit, kept.stored.len(), kept.sequence) {
            self.write_block(opened, hit.id, &kept.frames, &kept.stored);
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
        let budget = self.budget.load(Relaxed);
        // RocksDB drops files in the background. Where that lags behind, what comes meanwhile is not kept: a budget is one.
        let most = budget + 2 * write_buffer(budget);
        self.is_well() && len as u64 <= budget && opened.database.bytes() + len as u64 <= most
    }

    /// Whether it would keep a small block now.
    pub(in crate::disk) fn takes_blocks(&self) -> bool {
        self.opened.read().is_some() && self.is_well()
    }

    /// Neither sick nor short of space on its file system.
    fn is_well(&self) -> bool {
        !self.sick.load(Relaxed) && self.free.read(|| self.home.free_bytes()) >= self.free_floor
    }

    fn write_block(&self, opened: &Opened, id: BlockId, frames: &[u32], stored: &[u8]) {
        let now = opened.database.sequence();
        let len = value::overhead(frames.len()) + stored.len();
        self.write(opened, len, |put| value::encode(&opened.key, id, now, frames, stored, put));
    }

    fn write(&self, opened: &Opened, len: usize, fill: impl FnOnce(&mut dyn FnMut(EntryKey, &[u8]))) {
        match opened.database.put(len, fill) {
            Ok(()) => {
                count(&self.counts.puts);
                self.duties.note_put();
            }
            // It would have waited for the disk.
            Err(error) if error.kind() == ErrorKind::Incomplete => count(&self.counts.skipped),
            Err(error) => self.put_failed(&error),
        }
    }
}
