//! One entry of the disk tier, byte by byte: how a disk hit proves just the frame it needs.
//!
//! ```text
//! offset  size    field
//! 0       1       version, 1
//! 1       3       zero
//! 4       4       n, number of frames, 1 to 252
//! 8       8       sequence number of the database when it was put: its age
//! 16      4 * n   stored length of each frame
//! ..      16 * n  MAC of each frame
//! ..              the stored bytes of the block
//! ```
//!
//! Integers are little-endian. A MAC is the first 16 bytes of keyed BLAKE3 over key of the block, index of the frame
//! and number of frames (u32 each), stored bytes of the frame; so no frame passes for another one, or for one of a
//! shorter block. The rest needs no proof: a wrong length moves the bytes under the MAC, a wrong age costs a copy.

use blake3::Hasher;

use crate::desc::MAX_FRAMES;
use crate::id::BlockId;

const VERSION: u8 = 1;
const HEADER_LEN: usize = 16;
const AGE_RANGE: std::ops::Range<usize> = 8..16;
const MAC_LEN: usize = 16;
const PER_FRAME: usize = 4 + MAC_LEN;

/// The secret of one cache directory: without it nobody makes an entry that is believed.
#[derive(Clone)]
pub(super) struct MacKey(pub(super) [u8; 32]);

impl MacKey {
    fn mac(&self, id: &BlockId, index: usize, count: usize, stored: &[u8]) -> [u8; MAC_LEN] {
        let mut hasher = Hasher::new_keyed(&self.0);
        hasher.update(&id.key());
        hasher.update(&(index as u32).to_le_bytes());
        hasher.update(&(count as u32).to_le_bytes());
        hasher.update(stored);
        let mut mac = [0; MAC_LEN];
        mac.copy_from_slice(&hasher.finalize().as_bytes()[..MAC_LEN]);
        mac
    }
}

/// Bytes that an entry has beside those of its block.
pub(super) fn overhead(frames: usize) -> usize {
    HEADER_LEN + PER_FRAME * frames
}

/// Writes the entry of a proven block. `frames` add up to `stored`.
pub(super) fn encode(key: &MacKey, id: &BlockId, sequence: u64, frames: &[u32], stored: &[u8]) -> Vec<u8> {
    debug_assert!(!frames.is_empty() && frames.len() <= MAX_FRAMES);
    debug_assert_eq!(frames.iter().map(|&len| len as usize).sum::<usize>(), stored.len());
    let mut value = Vec::with_capacity(overhead(frames.len()) + stored.len());
    value.extend_from_slice(&[VERSION, 0, 0, 0]);
    value.extend_from_slice(&(frames.len() as u32).to_le_bytes());
    value.extend_from_slice(&sequence.to_le_bytes());
    for len in frames {
        value.extend_from_slice(&len.to_le_bytes());
    }
    let mut rest = stored;
    for (index, &len) in frames.iter().enumerate() {
        let (frame, after) = rest.split_at(len as usize);
        value.extend_from_slice(&key.mac(id, index, frames.len(), frame));
        rest = after;
    }
    value.extend_from_slice(stored);
    value
}

/// An entry whose lengths agree; nothing is proven yet.
pub(super) struct Entry<'v> {
    value: &'v [u8],
    lens: &'v [u8],
    macs: &'v [u8],
    stored: &'v [u8],
}

impl<'v> Entry<'v> {
    /// Reads the outline; `None` when it is not an entry.
    pub(super) fn parse(value: &'v [u8]) -> Option<Entry<'v>> {
        let (header, rest) = value.split_first_chunk::<HEADER_LEN>()?;
        if header[..4] != [VERSION, 0, 0, 0] {
            return None;
        }
        let count = u32::from_le_bytes(header[4..8].try_into().ok()?) as usize;
        if count == 0 || count > MAX_FRAMES {
            return None;
        }
        let (lens, rest) = rest.split_at_checked(4 * count)?;
        let (macs, stored) = rest.split_at_checked(MAC_LEN * count)?;
        let entry = Entry { value, lens, macs, stored };
        let total: u64 = entry.frames().map(u64::from).sum();
        (total == stored.len() as u64).then_some(entry)
    }

    /// The stored lengths of its frames.
    pub(super) fn frames(&self) -> impl ExactSizeIterator<Item = u32> + use<'v> {
        self.lens.chunks_exact(4).map(|len| u32::from_le_bytes(len.try_into().expect("chunks of four")))
    }

    /// The stored bytes of the block, unproven.
    pub(super) fn stored(&self) -> &'v [u8] {
        self.stored
    }

    /// The sequence number at which it was put.
    pub(super) fn sequence(&self) -> u64 {
        u64::from_le_bytes(self.value[AGE_RANGE].try_into().expect("eight bytes"))
    }

    /// A copy of the entry that is as young as `sequence`.
    pub(super) fn renewed(&self, sequence: u64) -> Vec<u8> {
        let mut value = self.value.to_vec();
        value[AGE_RANGE].copy_from_slice(&sequence.to_le_bytes());
        value
    }

    /// The stored bytes of frame `index` if its MAC agrees.
    pub(super) fn prove(&self, key: &MacKey, id: &BlockId, index: usize) -> Option<&'v [u8]> {
        let start: u32 = self.frames().take(index).sum();
        let len = self.frames().nth(index)?;
        let frame = &self.stored[start as usize..(start + len) as usize];
        let mac = &self.macs[index * MAC_LEN..(index + 1) * MAC_LEN];
        (key.mac(id, index, self.frames().len(), frame) == mac).then_some(frame)
    }

    /// Whether the MACs of all frames agree.
    pub(super) fn prove_all(&self, key: &MacKey, id: &BlockId) -> bool {
        (0..self.frames().len()).all(|index| self.prove(key, id, index).is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Codec;
    use proptest::prelude::*;

    const KEY: MacKey = MacKey([9; 32]);

    fn sample() -> (BlockId, Vec<u8>) {
        let stored: Vec<u8> = (0..100).collect();
        let id = BlockId::of(Codec::Raw, &stored);
        (id, encode(&KEY, &id, 77, &[10, 60, 30], &stored))
    }

    #[test]
    fn an_entry_gives_back_each_frame() {
        let (id, value) = sample();
        assert_eq!(value.len(), overhead(3) + 100);
        let entry = Entry::parse(&value).unwrap();
        assert_eq!(entry.frames().collect::<Vec<_>>(), [10, 60, 30]);
        assert_eq!(entry.prove(&KEY, &id, 1), Some(&value[overhead(3) + 10..overhead(3) + 70]));
        assert!(entry.prove_all(&KEY, &id) && entry.prove(&KEY, &id, 3).is_none());
        assert!(entry.prove(&MacKey([8; 32]), &id, 1).is_none());
        let other = BlockId::new(Codec::DagCbor, *id.digest());
        assert!(entry.prove(&KEY, &other, 1).is_none());
        let renewed = entry.renewed(99);
        let renewed = Entry::parse(&renewed).unwrap();
        assert_eq!((entry.sequence(), renewed.sequence()), (77, 99));
        assert!(renewed.prove_all(&KEY, &id));
    }

    proptest! {
        #[test]
        fn a_changed_entry_proves_nothing_but_the_right_bytes(
            at in any::<prop::sample::Index>(), mask in 1..=255_u8, cut in prop::option::of(any::<prop::sample::Index>()),
        ) {
            let (id, mut value) = sample();
            let at = at.index(value.len());
            value[at] ^= mask;
            if let Some(cut) = cut {
                value.truncate(cut.index(value.len()));
            }
            if let Some(entry) = Entry::parse(&value) {
                let frames: [&[u8]; 3] = [&value[76..86], &value[86..146], &value[146..]];
                for (index, bytes) in frames.iter().enumerate() {
                    if let Some(proven) = entry.prove(&KEY, &id, index) {
                        prop_assert_eq!(&proven, bytes);
                        prop_assert!(proven.iter().all(|byte| *byte < 100));
                    }
                }
                prop_assert!(!entry.prove_all(&KEY, &id) || AGE_RANGE.contains(&at));
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(value: Vec<u8>) {
            let (id, _) = sample();
            if let Some(entry) = Entry::parse(&value) {
                entry.prove_all(&KEY, &id);
            }
        }
    }
}
