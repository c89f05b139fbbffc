//! The database in use: look up and prove. What is kept is decided in `store/keep.rs`, what to do when the database
//! fails in `store/health.rs`.
//!
//! Lock order: `putting`, `maintenance`, then `opened`. Look-ups and puts hold `opened` shared, for one operation; whoever replaces
//! the database takes it out under the exclusive lock and closes and opens outside of it, so nobody waits for that.

mod health;
mod keep;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use parking_lot::{Mutex, RwLock};
use rocksdb::ErrorKind;

use super::database::{Database, write_buffer};
use super::gauge::Gauge;
use super::home::Home;
use super::keeper::Duties;
use super::pending::Pending;
use super::second_chance::SecondChance;
use super::value::{Entry, EntryKey, MacKey};
use super::{DiskState, DiskStats};
use crate::block::{PlainFrame, VerifiedBlock, VerifiedFrame};
use crate::desc::{BlockDesc, FrameSpan};
use crate::id::BlockId;
use crate::memory::FrameKey;
use keep::Kept;

/// A database that fails this many look-ups as corrupt is given up: its structure is damaged, not an entry.
const MAX_CORRUPT_READS: u64 = 16;

/// The database in use, or none while it cannot be opened.
pub(super) struct Store {
    opened: RwLock<Option<Opened>>,
    maintenance: Mutex<()>,
    // After the database: the lock goes last.
    home: Home,
    budget: AtomicU64,
    free_floor: u64,
    /// No puts until healed.
    sick: AtomicBool,
    /// Healing starts with a new database.
    broken: AtomicBool,
    duties: Duties,
    pending: Pending,
    /// Held for one put of a block that waited, and by whoever needs that none is under way.
    putting: Mutex<()>,
    chance: SecondChance,
    free: Gauge,
    horizon: Gauge,
    warned: Mutex<Option<Instant>>,
    counts: Counts,
}

struct Opened {
    database: Database,
    key: MacKey,
    corrupt_reads: AtomicU64,
}

#[derive(Default)]
struct Counts {
    hits: AtomicU64,
    misses: AtomicU64,
    damaged: AtomicU64,
    puts: AtomicU64,
    second_chances: AtomicU64,
    skipped: AtomicU64,
    put_errors: AtomicU64,
    read_errors: AtomicU64,
    healed: AtomicU64,
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}

impl Store {
    pub(super) fn open(home: Home, budget: u64, free_floor: u64) -> Store {
        let store = Store {
            opened: RwLock::new(None),
            maintenance: Mutex::new(()),
            home,
            budget: AtomicU64::new(budget),
            free_floor,
            sick: AtomicBool::new(false),
            broken: AtomicBool::new(false),
            duties: Duties::new(),
            pending: Pending::new(2 * write_buffer(budget)),
            putting: Mutex::new(()),
            chance: SecondChance::new(),
            free: Gauge::new(),
            horizon: Gauge::new(),
            warned: Mutex::new(None),
            counts: Counts::default(),
        };
        store.reopen();
        store
    }

    pub(super) fn duties(&self) -> &Duties {
        &self.duties
    }

    pub(super) fn pending(&self) -> &Pending {
        &self.pending
    }

    /// Proves and decodes one frame.
    pub(super) fn frame(&self, desc: &BlockDesc<'_>, span: FrameSpan) -> Option<PlainFrame> {
        if let Some(block) = self.pending.get(&desc.id()) {
            count(&self.counts.hits);
            return block.decode(desc, span.index as usize).ok();
        }
        self.look_up(|opened| {
            let hit = FrameKey { id: desc.id(), span };
            let found = self.entry(opened, EntryKey { id: hit.id, index: span.index }, |entry| {
                let is_it = entry.total == desc.stored_len()
                    && entry.offset == span.start
                    && entry.stored.len() == span.stored_len as usize;
                is_it.then(|| {
                    let plain = decode(entry.stored, span)?;
                    self.renew(opened, entry, hit);
                    Some(plain)
                })
            });
            match found {
                Some(Some(plain)) => plain,
                Some(None) => self.frame_of_other_cut(opened, desc, hit, u32::MAX),
                // The block may be kept in fewer frames.
                None if span.index > 0 => self.frame_of_other_cut(opened, desc, hit, span.index),
                None => None,
            }
        })
    }

    /// A frame of a block that was kept as an object, or under another flist's description, in at most `max_frames`. One
    /// of the two descriptions may be wrong; so the whole block is proven, and the cut of this caller stands or falls
    /// with the decoder.
    fn frame_of_other_cut(
        &self,
        opened: &Opened,
        desc: &BlockDesc<'_>,
        hit: FrameKey,
        max_frames: u32,
    ) -> Option<PlainFrame> {
        let kept =
            self.kept(opened, hit.id, |first| first.total == desc.stored_len() && first.count <= max_frames)?;
        let plain = decode(&kept.stored[hit.span.range()], hit.span)?;
        self.renew_block(opened, &kept, hit);
        Some(plain)
    }

    /// Proves a whole block.
    pub(super) fn block(&self, id: &BlockId) -> Option<VerifiedBlock> {
        if let Some(block) = self.pending.get(id) {
            count(&self.counts.hits);
            return Some(block);
        }
        self.look_up(|opened| {
            let kept = self.kept(opened, *id, |_| true)?;
            let span = FrameSpan::whole(kept.stored.len() as u32);
            self.renew_block(opened, &kept, FrameKey { id: *id, span });
            Some(VerifiedBlock::proven_by_mac(*id, kept.stored.into()))
        })
    }

    /// Whether the first frame of a block is here; a look that counts for nothing.
    pub(super) fn has(&self, id: &BlockId) -> bool {
        if self.pending.get(id).is_some() {
            return true;
        }
        let opened = self.opened.read();
        let first = EntryKey { id: *id, index: 0 };
        opened.as_ref().is_some_and(|opened| opened.database.get(&first).is_ok_and(|found| found.is_some()))
    }

    /// The same without counting, and without a second chance for the block.
    pub(super) fn peek(&self, id: &BlockId) -> Option<VerifiedBlock> {
        if let Some(block) = self.pending.get(id) {
            return Some(block);
        }
        let opened = self.opened.read();
        let kept = self.kept(opened.as_ref()?, *id, |_| true)?;
        Some(VerifiedBlock::proven_by_mac(*id, kept.stored.into()))
    }

    /// Every frame of a block, if its first one is `worth` it.
    fn kept(&self, opened: &Opened, id: BlockId, worth: impl FnOnce(&Entry<'_>) -> bool) -> Option<Kept> {
        let (count, total, mut kept) = self.entry(opened, EntryKey { id, index: 0 }, |first| {
            worth(first).then(|| {
                let mut stored = Vec::with_capacity(first.total as usize);
                stored.extend_from_slice(first.stored);
                let frames = vec![first.stored.len() as u32];
                (first.count, first.total, Kept { stored, frames, sequence: first.sequence() })
            })
        })??;
        for index in 1..count {
            // Frames that were put under several descriptions need not fit together.
            self.entry(opened, EntryKey { id, index }, |next| {
                let follows = next.total == total && next.offset as usize == kept.stored.len();
                follows.then(|| {
                    kept.stored.extend_from_slice(next.stored);
                    kept.frames.push(next.stored.len() as u32);
                })
            })??;
        }
        (kept.stored.len() == total as usize).then_some(kept)
    }

    fn look_up<T>(&self, find: impl FnOnce(&Opened) -> Option<T>) -> Option<T> {
        let opened = self.opened.read();
        let found = find(opened.as_ref()?);
        count(if found.is_some() { &self.counts.hits } else { &self.counts.misses });
        found
    }

    /// What `then` makes of an entry, if there is one and its MAC agrees.
    fn entry<T>(&self, opened: &Opened, key: EntryKey, then: impl FnOnce(&Entry<'_>) -> T) -> Option<T> {
        let value = match opened.database.get(&key) {
            Ok(value) => value?,
            Err(error) => {
                self.read_failed(opened, &key, &error);
                return None;
            }
        };
        let entry = Entry::prove(&opened.key, &key, &value);
        if entry.is_none() {
            self.drop_damaged(opened, &key);
        }
        entry.as_ref().map(then)
    }

    fn drop_damaged(&self, opened: &Opened, key: &EntryKey) {
        count(&self.counts.damaged);
        let EntryKey { id, index } = key;
        self.warn(format_args!("frame {index} of block {id} is damaged, it will be fetched again"));
        if let Err(error) = opened.database.delete(key) {
            self.put_failed(&error);
        }
    }

    fn put_failed(&self, error: &rocksdb::Error) {
        count(&self.counts.put_errors);
        self.fall_sick(error, error.kind() == ErrorKind::Corruption);
    }

    fn read_failed(&self, opened: &Opened, key: &EntryKey, error: &rocksdb::Error) {
        count(&self.counts.read_errors);
        if error.kind() != ErrorKind::Corruption {
            return self.fall_sick(error, false);
        }
        self.drop_damaged(opened, key);
        if opened.corrupt_reads.fetch_add(1, Relaxed) + 1 >= MAX_CORRUPT_READS {
            self.fall_sick(error, true);
        }
    }

    pub(super) fn flush(&self) {
        self.put_all();
        let opened = self.opened.read();
        // After trouble a flush can but fail again.
        if let Some(opened) = opened.as_ref()
            && !self.sick.load(Relaxed)
            && let Err(error) = opened.database.flush()
        {
            self.put_failed(&error);
        }
    }

    pub(super) fn set_budget(&self, budget: u64) {
        self.budget.store(budget, Relaxed);
        self.horizon.forget();
        if let Some(opened) = self.opened.read().as_ref() {
            match opened.database.set_budget(budget) {
                Ok(()) => opened.database.compact(),
                Err(error) => self.put_failed(&error),
            }
        }
    }

    pub(super) fn stats(&self) -> DiskStats {
        let opened = self.opened.read();
        let database = opened.as_ref().map(|opened| &opened.database);
        let ready = database.is_some() && !self.sick.load(Relaxed);
        DiskStats {
            state: if ready { DiskState::Ready } else { DiskState::Sick },
            bytes: database.map_or(0, Database::bytes) + self.pending.bytes(),
            budget: self.budget.load(Relaxed),
            entries: database.map_or(0, Database::entries) + self.pending.entries(),
            hits: self.counts.hits.load(Relaxed),
            misses: self.counts.misses.load(Relaxed),
            damaged: self.counts.damaged.load(Relaxed),
            puts: self.counts.puts.load(Relaxed),
            second_chances: self.counts.second_chances.load(Relaxed),
            skipped: self.counts.skipped.load(Relaxed),
            put_errors: self.counts.put_errors.load(Relaxed),
            read_errors: self.counts.read_errors.load(Relaxed),
            healed: self.counts.healed.load(Relaxed),
        }
    }
}

/// Proven bytes that do not decode are no fault of the disk: the fetch that follows tells the reader.
fn decode(stored: &[u8], span: FrameSpan) -> Option<PlainFrame> {
    VerifiedFrame::proven_alone(stored, span.plain_len).decode().ok()
}
