//! The disk tier: the nearest origin, trusted no more than any other.
//!
//! It holds the frames of stored blocks, each with a MAC (`disk/value.rs`), in RocksDB (`disk/database.rs`), in a
//! directory that one process owns (`disk/home.rs`). They come there when nobody waits for it (`disk/pending.rs`). Whatever goes wrong is a WARN and a miss: a damaged entry is
//! deleted, a full or broken disk means "uncached" until its keeper thread (`disk/keeper.rs`) has healed it.

mod database;
mod gauge;
mod home;
mod keeper;
mod pending;
mod second_chance;
mod store;
mod value;

use std::path::Path;
use std::sync::Arc;

use serde::Serialize;

use crate::block::{PlainFrame, VerifiedBlock};
use crate::cache::OpenError;
use crate::desc::{BlockDesc, FrameSpan};
use crate::id::BlockId;
use home::Home;
use keeper::Keeper;
use store::Store;

/// Whether the disk tier works.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DiskState {
    /// None was asked for.
    #[default]
    Off,
    /// It gives and takes blocks.
    Ready,
    /// It takes none, and tries to heal.
    Sick,
}

/// The disk tier in numbers; the counts are since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct DiskStats {
    /// Whether it works.
    pub state: DiskState,
    /// Bytes in use: in files, in the write buffer, and of blocks that are still to be put.
    pub bytes: u64,
    /// Most bytes its files may use.
    pub budget: u64,
    /// Entries, nearly: frames, and objects. Also those that are still to be put.
    pub entries: u64,
    /// Look-ups that gave proven bytes.
    pub hits: u64,
    /// Look-ups that gave nothing.
    pub misses: u64,
    /// Entries found damaged and deleted.
    pub damaged: u64,
    /// Blocks put, or waiting for it, and second chances.
    pub puts: u64,
    /// Frames and objects put again because they were used when about to fall out.
    pub second_chances: u64,
    /// Blocks not put: below the free-space floor, over the budget, sick, or faster than the disk.
    pub skipped: u64,
    /// Puts and flushes that the database failed.
    pub put_errors: u64,
    /// Look-ups that the database failed.
    pub read_errors: u64,
    /// Times the database was opened again to heal it.
    pub healed: u64,
}

/// The disk tier of one cache.
pub(crate) struct DiskTier {
    // Before the store: it uses it until it has ended.
    _keeper: Keeper,
    store: Arc<Store>,
}

impl DiskTier {
    /// Opens the tier in `dir`. A directory that cannot be had is an error, a database that cannot be opened is not.
    pub(crate) fn open(dir: &Path, budget: u64, free_floor: u64) -> Result<DiskTier, OpenError> {
        let home = Home::lock(dir)?;
        let store = Arc::new(Store::open(home, budget, free_floor));
        let keeper = Keeper::start(Arc::clone(&store))
            .map_err(|source| OpenError::Directory { dir: dir.to_owned(), source })?;
        Ok(DiskTier { _keeper: keeper, store })
    }

    /// Proves and decodes one frame.
    pub(crate) fn frame(&self, desc: &BlockDesc<'_>, span: FrameSpan) -> Option<PlainFrame> {
        self.store.frame(desc, span)
    }

    /// Proves a whole block.
    pub(crate) fn block(&self, id: &BlockId) -> Option<VerifiedBlock> {
        self.store.block(id)
    }

    /// Whether it has a block, as far as that can be told without proving it.
    pub(crate) fn has(&self, id: &BlockId) -> bool {
        self.store.has(id)
    }

    /// The same for somebody whose reading is no reason to keep it.
    pub(crate) fn peek(&self, id: &BlockId) -> Option<VerifiedBlock> {
        self.store.peek(id)
    }

    /// Whether it would keep a block now.
    pub(crate) fn takes_blocks(&self) -> bool {
        self.store.takes_blocks()
    }

    /// Keeps a block soon, and has it from now on; `false` where too many wait for that or none is taken, and nothing was done.
    pub(crate) fn put_soon(&self, block: &VerifiedBlock, frames: &Arc<[u32]>) -> bool {
        self.store.put_soon(block, frames)
    }

    /// Keeps a block, cut as `frames` say if they add up, else as one frame.
    pub(crate) fn put(&self, block: &VerifiedBlock, frames: &[u32]) {
        self.store.put(block, frames);
    }

    pub(crate) fn set_budget(&self, budget: u64) {
        self.store.set_budget(budget);
    }

    pub(crate) fn flush(&self) {
        self.store.flush();
    }

    pub(crate) fn clear(&self) {
        self.store.clear();
    }

    pub(crate) fn gc(&self) {
        self.store.gc();
    }

    pub(crate) fn stats(&self) -> DiskStats {
        self.store.stats()
    }
}
