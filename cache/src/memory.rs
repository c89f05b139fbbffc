//! The memory tier: decoded frames, the stored bytes of blocks that just came from a source, and seals of those that left.
//!
//! Why both: a reader that goes through a file asks for one frame after the other, and a block from a source without
//! `keep` is in no disk tier. Decoding all its frames at once would spend CPU and memory on bytes that a random reader
//! never asks for; keeping the proven stored bytes costs less than half of that, and each frame is decoded when wanted.

mod byte_lru;
mod seals;

use std::sync::Arc;

use parking_lot::Mutex;
use serde::Serialize;

use crate::block::{PlainFrame, VerifiedBlock};
use crate::desc::FrameSpan;
use crate::id::BlockId;
use byte_lru::ByteLru;
pub(crate) use seals::Seals;

/// Locks over the frames, so that session threads rarely meet.
const SHARDS: usize = 8;
/// The part of the budget for stored blocks: 1 / this.
const BLOCKS_PART: u64 = 4;
/// The part for seals: 1 / this, and at most so many bytes, which are those of 50,000 blocks of four frames.
const SEALS_PART: u64 = 16;
const MAX_SEALS: u64 = 16 << 20;

/// A frame of a block as one flist cuts it. The cut belongs to the key: under the index alone, a hostile flist that
/// calls a compressed frame raw would put its compressed bytes where honest mounts look for the plain ones.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct FrameKey {
    pub(crate) id: BlockId,
    pub(crate) span: FrameSpan,
}

/// The parts of the tier.
pub(crate) struct MemoryTier {
    frames: [Mutex<ByteLru<FrameKey, PlainFrame>>; SHARDS],
    blocks: Mutex<ByteLru<BlockId, VerifiedBlock>>,
    seals: Arc<Seals>,
    budget: u64,
}

/// The memory tier in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct MemoryStats {
    /// Bytes in use, with the cost of keeping them.
    pub bytes: u64,
    /// Decoded frames held.
    pub frames: u64,
    /// Stored blocks held.
    pub blocks: u64,
    /// Most bytes it may use.
    pub budget: u64,
}

impl MemoryTier {
    pub(crate) fn new(budget: u64) -> MemoryTier {
        let for_blocks = budget / BLOCKS_PART;
        let for_seals = (budget / SEALS_PART).min(MAX_SEALS);
        let per_shard = (budget - for_blocks - for_seals) / SHARDS as u64;
        MemoryTier {
            frames: std::array::from_fn(|_| Mutex::new(ByteLru::new(per_shard))),
            blocks: Mutex::new(ByteLru::new(for_blocks)),
            seals: Arc::new(Seals::new(for_seals)),
            budget,
        }
    }

    pub(crate) fn frame(&self, key: &FrameKey) -> Option<PlainFrame> {
        self.shard(key).lock().get(key)
    }

    pub(crate) fn block(&self, id: &BlockId) -> Option<VerifiedBlock> {
        self.blocks.lock().get(id)
    }

    /// The same without being a use of it.
    pub(crate) fn peek_block(&self, id: &BlockId) -> Option<VerifiedBlock> {
        self.blocks.lock().peek(id)
    }

    pub(crate) fn seals(&self) -> &Arc<Seals> {
        &self.seals
    }

    pub(crate) fn put_frame(&self, key: FrameKey, frame: &PlainFrame) {
        let cost = frame.len() as u64;
        // A statement of its own: what fell out is freed after the lock, which may be an munmap.
        let evicted = self.shard(&key).lock().put(key, frame.clone(), cost);
        drop(evicted);
    }

    pub(crate) fn put_block(&self, block: &VerifiedBlock) {
        let cost = block.bytes().len() as u64;
        let evicted = self.blocks.lock().put(block.id(), block.clone(), cost);
        drop(evicted);
    }

    /// The same unless something else would have to go for it.
    pub(crate) fn put_block_if_room(&self, block: &VerifiedBlock) {
        let cost = block.bytes().len() as u64;
        let mut blocks = self.blocks.lock();
        if blocks.has_room(cost) {
            let replaced = blocks.put(block.id(), block.clone(), cost);
            drop(blocks);
            drop(replaced);
        }
    }

    /// Whether stored blocks of so many bytes find room.
    pub(crate) fn has_room(&self, bytes: u64) -> bool {
        self.blocks.lock().has_room(bytes)
    }

    pub(crate) fn clear(&self) {
        for shard in &self.frames {
            shard.lock().clear();
        }
        self.blocks.lock().clear();
        self.seals.clear();
    }

    pub(crate) fn stats(&self) -> MemoryStats {
        let mut stats = MemoryStats { budget: self.budget, ..MemoryStats::default() };
        for shard in &self.frames {
            let shard = shard.lock();
            stats.frames += shard.len() as u64;
            stats.bytes += shard.bytes();
        }
        let blocks = self.blocks.lock();
        stats.blocks = blocks.len() as u64;
        stats.bytes += blocks.bytes() + self.seals.bytes();
        stats
    }

    fn shard(&self, key: &FrameKey) -> &Mutex<ByteLru<FrameKey, PlainFrame>> {
        // The first byte chooses the block's shard, the index spreads a block that everyone reads.
        &self.frames[(usize::from(key.id.digest()[0]) + key.span.index as usize) % SHARDS]
    }
}
