//! Recording which blocks are read, in the order of the first time: what a profile is made of.

use std::collections::HashSet;

use parking_lot::Mutex;

use crate::format::profile::MAX_BLOCKS;

/// The blocks that readers have asked for so far.
#[derive(Debug, Default)]
pub(super) struct Recorder(Mutex<Recorded>);

#[derive(Debug, Default)]
struct Recorded {
    seen: HashSet<u32>,
    order: Vec<u32>,
}

impl Recorder {
    /// A reader asks for something in this block. Those that no profile has room for are left out.
    pub(super) fn note(&self, block: u32) {
        let mut recorded = self.0.lock();
        if recorded.order.len() < MAX_BLOCKS && recorded.seen.insert(block) {
            recorded.order.push(block);
        }
    }

    pub(super) fn blocks(&self) -> Vec<u32> {
        self.0.lock().order.clone()
    }
}
