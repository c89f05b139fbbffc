//! One entry of the disk tier, byte by byte: a frame of a block, which stands for itself.
//!
//! So a disk hit reads, proves and decodes just the frame it needs. The key is that of the block (33 bytes) and the index of
//! the frame (1 byte). Frames of one block are put at once and lie side by side; but they fall out alone, and those of two
//! flists that cut a block differently may mix, hence each says where it lies.
//!
//! ```text
//! offset  size  field
//! 0       1     version, 2
//! 1       3     zero
//! 4       8     sequence number of the database when it was put: its age
//! 12      16    MAC
//! 28      4     number of frames of the block as it was put, 1 to 252
//! 32      4     length of the stored block
//! 36      4     offset of the frame in the stored block
//! 40      ..    the stored bytes of the frame
//! ```
//!
//! Integers are little-endian. The MAC is the first 16 bytes of keyed BLAKE3 over the key of the entry and all that
//! follows the MAC; so no frame passes for another one, or for one of another block. The age needs no proof: a wrong one
//! costs a copy. What an earlier version put lies under shorter keys, is never found and falls out.

use blake3::Hasher;

use crate::desc::{MAX_FRAMES, MAX_STORED};
use crate::id::BlockId;

const START: [u8; 4] = [2, 0, 0, 0];
const AGE: std::ops::Range<usize> = 4..12;
const MAC: std::ops::Range<usize> = 12..28;
const HEADER_LEN: usize = 40;
const KEY_LEN: usize = BlockId::KEY_LEN + 1;

const _: () = assert!(MAX_FRAMES <= 1 + u8::MAX as usize && MAX_STORED <= u32::MAX as usize);

/// The secret of one cache directory: without it nobody makes an entry that is believed.
#[derive(Clone)]
pub(super) struct MacKey(pub(super) [u8; 32]);

/// The key of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EntryKey {
    pub(super) id: BlockId,
    /// Which frame of the block, below [`MAX_FRAMES`].
    pub(super) index: u32,
}

impl EntryKey {
    pub(super) fn bytes(&self) -> [u8; KEY_LEN] {
        let mut key = [0; KEY_LEN];
        key[..BlockId::KEY_LEN].copy_from_slice(&self.id.key());
        key[BlockId::KEY_LEN] = self.index as u8;
        key
    }
}

/// Bytes that the entries of a block have beside its own.
pub(super) fn overhead(frames: usize) -> usize {
    HEADER_LEN * frames
}

/// Writes the entries of a proven block one after the other. `frames` add up to `stored`.
pub(super) fn encode(
    key: &MacKey,
    id: BlockId,
    sequence: u64,
    frames: &[u32],
    stored: &[u8],
    mut write: impl FnMut(EntryKey, &[u8]),
) {
    debug_assert!(!frames.is_empty() && frames.len() <= MAX_FRAMES);
    debug_assert_eq!(frames.iter().map(|&len| len as usize).sum::<usize>(), stored.len());
    let mut value = Vec::new();
    let mut offset = 0;
    for (index, &len) in (0..).zip(frames) {
        value.clear();
        value.extend_from_slice(&START);
        value.extend_from_slice(&sequence.to_le_bytes());
        value.extend_from_slice(&[0; MAC.end - MAC.start]);
        for field in [frames.len(), stored.len(), offset] {
            value.extend_from_slice(&(field as u32).to_le_bytes());
        }
        value.extend_from_slice(&stored[offset..][..len as usize]);
        let entry = EntryKey { id, index };
        let mac = mac(key, &entry, &value);
        value[MAC].copy_from_slice(&mac);
        write(entry, &value);
        offset += len as usize;
    }
}

fn mac(key: &MacKey, entry: &EntryKey, value: &[u8]) -> [u8; MAC.end - MAC.start] {
    let mut hasher = Hasher::new_keyed(&key.0);
    hasher.update(&entry.bytes());
    hasher.update(&value[MAC.end..]);
    let mut mac = [0; MAC.end - MAC.start];
    mac.copy_from_slice(&hasher.finalize().as_bytes()[..MAC.end - MAC.start]);
    mac
}

/// An entry whose MAC agreed: `stored` are bytes `offset..` of the block.
#[derive(Debug)]
pub(super) struct Entry<'v> {
    value: &'v [u8],
    /// Number of frames of the block as it was put.
    pub(super) count: u32,
    /// Length of the stored block.
    pub(super) total: u32,
    /// Where the frame begins in it.
    pub(super) offset: u32,
    /// Its stored bytes.
    pub(super) stored: &'v [u8],
}

impl<'v> Entry<'v> {
    /// Reads and proves the entry under `entry`; `None` when it is not what was put there.
    pub(super) fn prove(key: &MacKey, entry: &EntryKey, value: &'v [u8]) -> Option<Entry<'v>> {
        let (header, stored) = value.split_first_chunk::<HEADER_LEN>()?;
        if header[..START.len()] != START || mac(key, entry, value) != header[MAC] {
            return None;
        }
        let field = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("four bytes"));
        Some(Entry { value, count: field(28), total: field(32), offset: field(36), stored })
    }

    /// The sequence number at which it was put.
    pub(super) fn sequence(&self) -> u64 {
        u64::from_le_bytes(self.value[AGE].try_into().expect("eight bytes"))
    }

    /// A copy of the entry that is as young as `sequence`.
    pub(super) fn renewed(&self, sequence: u64) -> Vec<u8> {
        let mut value = self.value.to_vec();
        value[AGE].copy_from_slice(&sequence.to_le_bytes());
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Codec;
    use proptest::prelude::*;

    const KEY: MacKey = MacKey([9; 32]);
    const FRAMES: [u32; 3] = [10, 60, 30];

    type Entries = Vec<(EntryKey, Vec<u8>)>;

    fn sample() -> (BlockId, Vec<u8>, Entries) {
        let stored: Vec<u8> = (0..100).collect();
        let id = BlockId::of(Codec::Raw, &stored);
        let mut entries = Vec::new();
        encode(&KEY, id, 77, &FRAMES, &stored, |key, value| entries.push((key, value.to_vec())));
        (id, stored, entries)
    }

    #[test]
    fn entries_give_back_the_frames_of_a_block() {
        let (id, stored, entries) = sample();
        assert_eq!(entries.iter().map(|(_, value)| value.len()).sum::<usize>(), overhead(3) + 100);
        let (mut offset, mut keys) = (0, Vec::new());
        for (index, (key, value)) in (0..).zip(&entries) {
            assert_eq!(*key, EntryKey { id, index });
            let entry = Entry::prove(&KEY, key, value).unwrap();
            let renewed = entry.renewed(99);
            let renewed = Entry::prove(&KEY, key, &renewed).unwrap();
            assert_eq!((entry.sequence(), renewed.sequence()), (77, 99));
            for entry in [entry, renewed] {
                assert_eq!((entry.count, entry.total, entry.offset as usize), (3, 100, offset));
                assert_eq!(entry.stored, &stored[offset..][..FRAMES[index as usize] as usize]);
            }
            offset += FRAMES[index as usize] as usize;
            keys.push(key.bytes());
        }
        assert!(keys.is_sorted(), "they lie side by side");
    }

    #[test]
    fn an_entry_proves_nothing_in_another_place() {
        let (id, _, entries) = sample();
        let (key, value) = &entries[1];
        assert!(Entry::prove(&MacKey([8; 32]), key, value).is_none());
        let other_codec = BlockId::new(Codec::DagCbor, *id.digest());
        let other_block = BlockId::new(Codec::Raw, [0; 32]);
        for (id, index) in [(id, 0), (id, 2), (other_codec, 1), (other_block, 1)] {
            assert!(Entry::prove(&KEY, &EntryKey { id, index }, value).is_none());
        }
    }

    proptest! {
        #[test]
        fn a_changed_entry_proves_nothing_unless_its_age_alone_changed(
            which in 0..3_usize,
            at in any::<prop::sample::Index>(),
            mask in 1..=255_u8,
            cut in prop::option::of(any::<prop::sample::Index>()),
        ) {
            let (_, _, entries) = sample();
            let (key, right) = &entries[which];
            let mut value = right.clone();
            let at = at.index(value.len());
            value[at] ^= mask;
            if let Some(cut) = cut {
                value.truncate(cut.index(value.len()));
            }
            let proven = Entry::prove(&KEY, key, &value);
            let as_put = AGE.contains(&at) && value.len() == right.len();
            prop_assert_eq!(proven.is_some(), as_put);
            prop_assert!(proven.is_none_or(|entry| *entry.stored == right[HEADER_LEN..]));
        }

        #[test]
        fn arbitrary_bytes_never_panic(value: Vec<u8>) {
            let (_, _, entries) = sample();
            prop_assert!(Entry::prove(&KEY, &entries[0].0, &value).is_none());
        }
    }
}
