//! The database in use: look up, prove, keep. What to do when it fails is in `store/health.rs`.
//!
//! Lock order: `maintenance`, then `opened`. Look-ups and puts hold `opened` shared, for one operation; whoever replaces
//! the database takes it out under the exclusive lock and closes and opens outside of it, so nobody waits for that.

mod health;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use rocksdb::ErrorKind;

use super::database::Database;
use super::gauge::Gauge;
use super::home::Home;
use super::keeper::Duties;
use super::second_chance::SecondChance;
use super::value::{self, Entry, MacKey};
use super::{DiskState, DiskStats};
use crate::block::{PlainFrame, VerifiedBlock, VerifiedFrame};
use crate::desc::{BlockDesc, FrameSpan, MAX_FRAMES};
use crate::id::BlockId;
use crate::memory::FrameKey;

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

    /// Proves and decodes one frame of an entry.
    pub(super) fn frame(&self, desc: &BlockDesc<'_>, span: FrameSpan) -> Option<PlainFrame> {
        let id = desc.id();
        self.look_up(&id, |opened, entry| {
            if desc.stored_len() as usize != entry.stored().len() {
                return Ok(None);
            }
            let stored = if entry.frames().eq(desc.frames().iter().copied()) {
                entry.prove(&opened.key, &id, span.index as usize).ok_or(Unproven)?
            } else {
                // Kept as an object, or under another flist's description. One of the two may be wrong; so the whole
                // block is proven, and the cut of this caller stands or falls with the decoder.
                entry.prove_all(&opened.key, &id).then_some(()).ok_or(Unproven)?;
                &entry.stored()[span.range()]
            };
            // Proven bytes that do not decode are no fault of the disk: the fetch that follows tells the reader.
            let Ok(plain) = VerifiedFrame::proven_by_mac(stored, span.plain_len).decode() else {
                return Ok(None);
            };
            self.renew(opened, entry, FrameKey { id, span });
            Ok(Some(plain))
        })
    }

    /// Proves a whole entry.
    pub(super) fn block(&self, id: &BlockId) -> Option<VerifiedBlock> {
        self.look_up(id, |opened, entry| {
            entry.prove_all(&opened.key, id).then_some(()).ok_or(Unproven)?;
            let span = FrameSpan::whole(entry.stored().len() as u32);
            self.renew(opened, entry, FrameKey { id: *id, span });
            Ok(Some(VerifiedBlock::proven_by_mac(*id, Bytes::copy_from_slice(entry.stored()))))
        })
    }

    fn look_up<T>(
        &self,
        id: &BlockId,
        prove: impl FnOnce(&Opened, &Entry<'_>) -> Result<Option<T>, Unproven>,
    ) -> Option<T> {
        let opened = self.opened.read();
        let opened = opened.as_ref()?;
        let found = match opened.database.get(&id.key()) {
            Ok(Some(found)) => found,
            Ok(None) => {
                count(&self.counts.misses);
                return None;
            }
            Err(error) => {
                self.read_failed(opened, id, &error);
                return None;
            }
        };
        match Entry::parse(&found).ok_or(Unproven).and_then(|entry| prove(opened, &entry)) {
            Ok(Some(proven)) => {
                count(&self.counts.hits);
                Some(proven)
            }
            Ok(None) => None,
            Err(Unproven) => {
                self.drop_damaged(opened, id);
                None
            }
        }
    }

    fn drop_damaged(&self, opened: &Opened, id: &BlockId) {
        count(&self.counts.damaged);
        self.warn(format_args!("entry of block {id} is damaged, it will be fetched again"));
        if let Err(error) = opened.database.delete(&id.key()) {
            self.put_failed(&error);
        }
    }

    /// Keeps a proven block if there is room.
    pub(super) fn put(&self, block: &VerifiedBlock, frames: &[u32]) {
        let stored = block.bytes();
        let whole = [stored.len() as u32];
        let total: u64 = frames.iter().map(|&len| u64::from(len)).sum();
        let fits = total == stored.len() as u64 && !frames.is_empty() && frames.len() <= MAX_FRAMES;
        let frames = if fits { frames } else { &whole };
        let opened = self.opened.read();
        let Some(opened) = opened.as_ref() else { return count(&self.counts.skipped) };
        if !self.has_room(value::overhead(frames.len()) + stored.len()) {
            return count(&self.counts.skipped);
        }
        let entry = value::encode(&opened.key, &block.id(), opened.database.sequence(), frames, stored);
        self.write(opened, &block.id(), &entry);
    }

    /// Puts an entry again that was hit when about to fall out.
    fn renew(&self, opened: &Opened, entry: &Entry<'_>, hit: FrameKey) {
        let now = opened.database.sequence();
        let horizon = self.horizon.read(|| self.measure_horizon(&opened.database));
        let age = now.saturating_sub(entry.sequence());
        let len = entry.stored().len();
        if self.chance.earned(hit, len, age, horizon) && self.has_room(len) {
            count(&self.counts.second_chances);
            self.write(opened, &hit.id, &entry.renewed(now));
        }
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

    fn has_room(&self, len: usize) -> bool {
        !self.sick.load(Relaxed)
            && len as u64 <= self.budget.load(Relaxed)
            && self.free.read(|| self.home.free_bytes()) >= self.free_floor
    }

    fn write(&self, opened: &Opened, id: &BlockId, entry: &[u8]) {
        match opened.database.put(&id.key(), entry) {
            Ok(()) => {
                count(&self.counts.puts);
                self.duties.note_put();
            }
            // It would have waited for the disk.
            Err(error) if error.kind() == ErrorKind::Incomplete => count(&self.counts.skipped),
            Err(error) => self.put_failed(&error),
        }
    }

    fn put_failed(&self, error: &rocksdb::Error) {
        count(&self.counts.put_errors);
        self.fall_sick(error, error.kind() == ErrorKind::Corruption);
    }

    fn read_failed(&self, opened: &Opened, id: &BlockId, error: &rocksdb::Error) {
        count(&self.counts.read_errors);
        if error.kind() != ErrorKind::Corruption {
            return self.fall_sick(error, false);
        }
        self.drop_damaged(opened, id);
        if opened.corrupt_reads.fetch_add(1, Relaxed) + 1 >= MAX_CORRUPT_READS {
            self.fall_sick(error, true);
        }
    }

    pub(super) fn flush(&self) {
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
            bytes: database.map_or(0, Database::bytes),
            budget: self.budget.load(Relaxed),
            entries: database.map_or(0, Database::entries),
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

/// The entry is not what was put.
struct Unproven;
