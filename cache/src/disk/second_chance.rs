//! What FIFO lacks: whether a frame that is about to fall out has earned to stay.
//!
//! A hit in the oldest quarter puts the frame again, as new. So that one pass over a large image does not push out what
//! is used daily, a frame of a large block must be hit twice there: one hit of each is what a scan does. A second read
//! means that the memory tier had lost it meanwhile.

use std::num::NonZeroUsize;

use lru::LruCache;
use parking_lot::Mutex;

use crate::memory::FrameKey;

/// Frames remembered as hit once.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(4096).expect("not zero");
/// Of a block below this many stored bytes one use is enough: a copy costs less than the fetch it may save.
const SMALL: usize = 64 * 1024;

/// Frames hit once in the oldest quarter.
pub(super) struct SecondChance(Mutex<LruCache<FrameKey, ()>>);

impl SecondChance {
    pub(super) fn new() -> SecondChance {
        SecondChance(Mutex::new(LruCache::new(REMEMBERED)))
    }

    /// Whether a frame that was just hit, of a block of `block_len` bytes, is put again. `age` is how many entries were
    /// put since it was, `horizon` from which age on an entry is in the oldest quarter.
    pub(super) fn earned(&self, key: FrameKey, block_len: usize, age: u64, horizon: u64) -> bool {
        if age < horizon {
            return false;
        }
        block_len < SMALL || {
            let mut once = self.0.lock();
            once.pop(&key).is_some() || once.put(key, ()).is_some()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desc::FrameSpan;
    use crate::id::{BlockId, Codec};

    #[test]
    fn what_is_old_earns_by_being_small_or_used_twice() {
        let chance = SecondChance::new();
        let id = BlockId::new(Codec::Raw, [1; 32]);
        let key = |index| FrameKey { id, span: FrameSpan { index, ..FrameSpan::whole(9) } };
        assert!(!chance.earned(key(0), 10, 74, 75), "young");
        assert!(chance.earned(key(0), 10, 75, 75), "old and small");
        let scan: Vec<bool> = (0..4).map(|frame| chance.earned(key(frame), 1_000_000, 80, 75)).collect();
        assert_eq!(scan, [false; 4], "one pass");
        assert!(chance.earned(key(2), 1_000_000, 80, 75), "used again");
        assert!(!chance.earned(key(2), 1_000_000, 80, 75), "counts anew");
    }
}
