//! How far a publication is, for whoever looks on from another thread.
//!
//! An object counts once, whatever happens to it on the way: what is sent again because a connection broke or a node lost it
//! was done before, or is on its way until the sink has said that it is there.

use parking_lot::Mutex;

/// The counters of one publication.
#[derive(Debug, Default)]
pub struct Progress(Mutex<Reached>);

/// What they say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reached {
    /// Objects that there are.
    pub objects: u64,
    /// Their bytes. Until all is done, of the data blocks only, and no fewer than are done: a root tells no other sizes.
    pub bytes: u64,
    /// Objects that are at the sink.
    pub done: u64,
    /// Their bytes.
    pub done_bytes: u64,
    /// Those of them that were there already.
    pub skipped: u64,
    /// Objects on their way.
    pub moving: u64,
    /// Their bytes.
    pub moving_bytes: u64,
}

impl Progress {
    /// How far it is now.
    pub fn look(&self) -> Reached {
        let reached = *self.0.lock();
        Reached { bytes: reached.bytes.max(reached.done_bytes + reached.moving_bytes), ..reached }
    }

    pub(super) fn begin(&self, objects: u64, bytes: u64) {
        *self.0.lock() = Reached { objects, bytes, ..Reached::default() };
    }

    /// One object was there.
    pub(super) fn found(&self, bytes: u64) {
        self.0.lock().skipped += 1;
        self.arrived(bytes);
    }

    /// One object is there now.
    pub(super) fn arrived(&self, bytes: u64) {
        let mut reached = self.0.lock();
        reached.done += 1;
        reached.done_bytes += bytes;
    }

    /// One object is on its way.
    pub(super) fn moves(&self, bytes: u64) {
        let mut reached = self.0.lock();
        reached.moving += 1;
        reached.moving_bytes += bytes;
    }

    /// Nothing is on its way any more: it has arrived, or it has not.
    pub(super) fn rests(&self) {
        let mut reached = self.0.lock();
        (reached.moving, reached.moving_bytes) = (0, 0);
    }

    /// All is done, so all sizes are known.
    pub(super) fn end(&self) {
        let mut reached = self.0.lock();
        debug_assert_eq!(reached.done, reached.objects, "what is published is all there");
        reached.bytes = reached.done_bytes;
        (reached.moving, reached.moving_bytes) = (0, 0);
    }
}
