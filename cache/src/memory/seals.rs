//! What proves a frame of a block that was here before, when the block itself is gone.
//!
//! The name of a block proves all of it or nothing. Blocks of a source on this machine are not copied to the disk tier, so a
//! random read of one would read and hash a megabyte each time. Hence the hash of each frame is remembered, which
//! costs 36 bytes, when the block was proven for the second time; and then one frame is read and proven alone. Not the
//! first time: one pass over a large image would hash everything once more for nothing.

use std::sync::Arc;

use blake3::Hash;
use parking_lot::Mutex;

use super::byte_lru::ByteLru;
use crate::block::VerifiedBlock;
use crate::desc::BlockDesc;
use crate::id::BlockId;

/// Stored length and hash of every frame of a block; none of one that was fetched once.
type Sealed = Arc<[(u32, Hash)]>;

/// The seals of the blocks used last.
pub(crate) struct Seals(Mutex<ByteLru<BlockId, Sealed>>);

impl Seals {
    pub(super) fn new(budget: u64) -> Seals {
        Seals(Mutex::new(ByteLru::new(budget)))
    }

    /// Whether a block that was just fetched is to be sealed.
    pub(crate) fn wants(&self, id: BlockId) -> bool {
        let mut seals = self.0.lock();
        let known = seals.get(&id).is_some();
        if !known {
            let evicted = seals.put(id, Arc::from([]), 0);
            drop(seals);
            drop(evicted);
        }
        known
    }

    /// Remembers the frames of a proven block, cut as `frames` say, if they add up. Hashes all of it.
    pub(crate) fn seal(&self, block: &VerifiedBlock, frames: &[u32]) {
        let mut rest = &block.bytes()[..];
        let mut sealed = Vec::with_capacity(frames.len());
        for &len in frames {
            let Some((frame, after)) = rest.split_at_checked(len as usize) else { return };
            sealed.push((len, blake3::hash(frame)));
            rest = after;
        }
        if rest.is_empty() && !sealed.is_empty() {
            let cost = size_of_val(&sealed[..]) as u64;
            let evicted = self.0.lock().put(block.id(), sealed.into(), cost);
            drop(evicted);
        }
    }

    /// The hash that the stored bytes of frame `index` have, if the block was seen and is cut like this.
    pub(crate) fn of(&self, desc: &BlockDesc<'_>, index: u32) -> Option<Hash> {
        let sealed = self.0.lock().get(&desc.id())?;
        let same_cut = sealed.iter().map(|(len, _)| len).eq(desc.frames());
        same_cut.then(|| sealed[index as usize].1)
    }

    pub(super) fn clear(&self) {
        self.0.lock().clear();
    }

    pub(super) fn bytes(&self) -> u64 {
        self.0.lock().bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::StoredBlock;
    use crate::id::Codec;

    fn block(first: u8) -> VerifiedBlock {
        let bytes: Vec<u8> = (0..10_000_u32).map(|at| (at / 100) as u8 ^ first).collect();
        StoredBlock::new(BlockId::of(Codec::Raw, &bytes), bytes).unwrap().verify().unwrap()
    }

    #[test]
    fn a_seal_is_that_of_one_frame_under_one_cut() {
        let (seals, block) = (Seals::new(10_000), block(0));
        let desc = |frames| BlockDesc::new(block.id(), 12_288, 4096, frames).unwrap();
        for wrong in [&[][..], &[4000], &[4000, 4000, 4000], &[10_000, u32::MAX, 10_000]] {
            seals.seal(&block, wrong);
        }
        assert_eq!((seals.of(&desc(&[4000, 4000, 2000]), 0), seals.bytes()), (None, 0));
        seals.seal(&block, &[4000, 4000, 2000]);
        let frames = [0..4000, 4000..8000, 8000..10_000];
        for (index, range) in (0..).zip(frames) {
            let right = blake3::hash(&block.bytes()[range]);
            assert_eq!(seals.of(&desc(&[4000, 4000, 2000]), index), Some(right));
            assert_eq!(seals.of(&desc(&[4000, 2000, 4000]), index), None);
        }
    }

    #[test]
    fn a_block_is_to_be_sealed_when_it_is_fetched_again() {
        let (seals, block) = (Seals::new(10_000), block(0));
        let desc = BlockDesc::new(block.id(), 12_288, 4096, &[4000, 4000, 2000]).unwrap();
        assert!(!seals.wants(block.id()) && seals.of(&desc, 0).is_none());
        assert!(seals.wants(block.id()));
        seals.seal(&block, desc.frames());
        assert!(seals.wants(block.id()) && seals.of(&desc, 0).is_some());
    }

    #[test]
    fn the_budget_holds_and_the_oldest_go() {
        let seals = Seals::new(2000);
        let blocks: Vec<_> = (0..30).map(block).collect();
        for block in &blocks {
            seals.seal(block, &[4000, 4000, 2000]);
            assert!(seals.bytes() <= 2000);
        }
        let sealed = |block: &VerifiedBlock| {
            let desc = BlockDesc::new(block.id(), 12_288, 4096, &[4000, 4000, 2000]).unwrap();
            seals.of(&desc, 0).is_some()
        };
        assert!(!sealed(&blocks[0]) && sealed(&blocks[29]));
    }
}
