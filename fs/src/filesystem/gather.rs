//! Joining what a read gathers from frames, holes and the tree.

use bytes::Bytes;
use g8_cache::PlainFrame;

use super::Contents;

/// Joins the pieces of a read; a read that lies in one frame is not copied.
pub(super) enum Gather {
    Empty(u64),
    One(Bytes, u64),
    Joined(Vec<u8>),
}

impl Gather {
    pub fn new(len: u64) -> Self {
        Gather::Empty(len)
    }

    /// `len` bytes of a frame, `from` its start on.
    pub fn frame(&mut self, plain: &PlainFrame, from: usize, len: usize) -> bool {
        match self {
            Gather::Empty(total) if *total == len as u64 => {
                *self = Gather::One(plain.bytes().slice(from..from + len), *total);
                true
            }
            Gather::Empty(_) | Gather::One(..) | Gather::Joined(_) => {
                self.bytes(&plain.bytes()[from..from + len])
            }
        }
    }

    /// Bytes that are at hand.
    pub fn bytes(&mut self, bytes: &[u8]) -> bool {
        self.joined().extend_from_slice(bytes);
        true
    }

    /// Bytes that are zero.
    pub fn zeros(&mut self, len: u64) -> bool {
        let joined = self.joined();
        joined.resize(joined.len() + len as usize, 0);
        true
    }

    fn joined(&mut self) -> &mut Vec<u8> {
        match self {
            Gather::Empty(total) => *self = Gather::Joined(Vec::with_capacity(*total as usize)),
            Gather::One(bytes, total) => {
                let mut joined = Vec::with_capacity(*total as usize);
                joined.extend_from_slice(bytes);
                *self = Gather::Joined(joined);
            }
            Gather::Joined(_) => {}
        }
        match self {
            Gather::Joined(joined) => joined,
            Gather::Empty(_) | Gather::One(..) => unreachable!("just made"),
        }
    }

    pub fn finish(self) -> Contents {
        Contents(match self {
            Gather::Empty(_) => Bytes::new(),
            Gather::One(bytes, _) => bytes,
            Gather::Joined(joined) => joined.into(),
        })
    }
}
