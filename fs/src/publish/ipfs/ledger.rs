//! What a node has of an flist, as far as we know: each object once, with its size.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use g8_cache::BlockId;

use crate::publish::{Done, Progress};

#[derive(Debug)]
pub(super) struct Ledger {
    /// Objects that the node had.
    here: HashMap<BlockId, u64>,
    /// Objects that went into some CAR.
    offered: HashSet<BlockId>,
    /// Objects that we brought.
    sent: HashMap<BlockId, u64>,
    /// Bytes of both.
    bytes: u64,
    progress: Arc<Progress>,
}

impl Ledger {
    pub(super) fn new(progress: Arc<Progress>) -> Ledger {
        let (here, offered, sent) = (HashMap::new(), HashSet::new(), HashMap::new());
        Ledger { here, offered, sent, bytes: 0, progress }
    }

    /// Bytes that are known to be on the node.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The node says that it has an object. What went into a CAR that broke off came from us.
    pub(super) fn has(&mut self, id: BlockId, bytes: u64) {
        if self.offered.contains(&id) {
            self.arrived(&[(id, bytes)]);
        } else if self.is_new(&id) {
            self.here.insert(id, bytes);
            self.bytes += bytes;
            self.progress.found(bytes);
        }
    }

    /// Objects are sent; whether they arrive is not known.
    pub(super) fn offers(&mut self, objects: &[(BlockId, u64)]) {
        self.offered.extend(objects.iter().map(|(id, _)| *id));
    }

    /// Objects have arrived. A root that was there is sent to be pinned, and not for its bytes.
    pub(super) fn arrived(&mut self, objects: &[(BlockId, u64)]) {
        for (id, bytes) in objects {
            if self.is_new(id) {
                self.sent.insert(*id, *bytes);
                self.bytes += bytes;
                self.progress.arrived(*bytes);
            }
        }
    }

    fn is_new(&self, id: &BlockId) -> bool {
        !self.here.contains_key(id) && !self.sent.contains_key(id)
    }

    /// The end of it.
    pub(super) fn close(&self, pin: Option<String>) -> Done {
        Done {
            skipped_bytes: self.here.values().sum(),
            sent: self.sent.len() as u64,
            sent_bytes: self.sent.values().sum(),
            pin,
        }
    }
}

#[cfg(test)]
mod tests {
    use g8_cache::Codec;

    use super::*;

    #[test]
    fn an_object_counts_once_whatever_happens_to_it_on_the_way() {
        let progress = Arc::new(Progress::default());
        progress.begin(4, 100);
        let id = |name: &[u8]| BlockId::of(Codec::Raw, name);
        let (there, lost, cut, root) = (id(b"there"), id(b"lost"), id(b"cut"), id(b"root"));
        let mut ledger = Ledger::new(progress.clone());
        ledger.has(there, 10);
        ledger.has(root, 5);
        // It arrives, a garbage collector takes it, and it is sent again. The root is sent to be pinned.
        ledger.arrived(&[(lost, 20)]);
        ledger.arrived(&[(lost, 20), (root, 5)]);
        // The connection broke, and the node turns out to have it.
        ledger.offers(&[(cut, 70)]);
        ledger.has(cut, 70);
        ledger.has(there, 10);
        let done = ledger.close(None);
        assert_eq!((done.skipped_bytes, done.sent, done.sent_bytes), (15, 2, 90));
        assert_eq!(ledger.bytes(), 105);
        progress.end();
        let reached = progress.look();
        assert_eq!((reached.done, reached.skipped), (4, 2));
        assert_eq!((reached.bytes, reached.done_bytes), (105, 105));
    }
}
