//! Round trips, determinism, and hostile frames.

use proptest::prelude::*;

use super::*;
use crate::block::{StoredBlock, VerifiedBlock};
use crate::desc::{BlockDesc, MAX_STORED};

fn xorshift(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    std::iter::repeat_with(&mut next).flatten().take(len).collect()
}

fn text(seed: u64, len: usize) -> Vec<u8> {
    let words = ["block ", "frame ", "source ", "the ", "of\n", "verified ", "12345 ", "g8os "];
    xorshift(seed, len).iter().flat_map(|&b| words[usize::from(b & 7)].bytes()).take(len).collect()
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Zero,
    Random,
    Text,
    Mixed,
}

fn plain(kind: Kind, seed: u64, len: usize) -> Vec<u8> {
    match kind {
        Kind::Zero => vec![0; len],
        Kind::Random => xorshift(seed, len),
        Kind::Text => text(seed, len),
        Kind::Mixed => {
            let mut bytes = text(seed, len / 2);
            bytes.extend(xorshift(seed, len - len / 2));
            bytes
        }
    }
}

fn encoder(level: i32, frame_len: u32) -> Encoder {
    Encoder::new(EncodeOptions { level, frame_len }).unwrap()
}

fn verified(block: &EncodedBlock) -> VerifiedBlock {
    StoredBlock::new(block.id, block.stored.clone()).unwrap().verify().unwrap()
}

fn round_trip(bytes: &[u8], block: &EncodedBlock) {
    let held = verified(block);
    let mut decoded = Vec::new();
    for index in 0..block.frames.len() {
        decoded.extend_from_slice(&held.decode(&block.desc(), index).unwrap());
    }
    assert_eq!(decoded, bytes);
    assert_eq!(&held.decode_block(&block.desc()).unwrap()[..], bytes);
}

#[test]
fn the_smallest_and_the_largest_blocks_round_trip() {
    for kind in [Kind::Zero, Kind::Random, Kind::Text, Kind::Mixed] {
        for len in [1, 2, 4095, 4096, 4097, 262_143, 262_144, 262_145, MAX_STORED - 1, MAX_STORED] {
            let bytes = plain(kind, len as u64, len);
            let block = encoder(3, 262_144).encode(&bytes).unwrap();
            assert!(block.stored.len() <= len, "{kind:?} of {len} grew to {}", block.stored.len());
            round_trip(&bytes, &block);
        }
    }
    let mut encoder = encoder(3, 262_144);
    assert!(matches!(encoder.encode(&[]), Err(EncodeError::PlainLen(0))));
    assert!(matches!(encoder.encode(&vec![0; MAX_STORED + 1]), Err(EncodeError::PlainLen(_))));
    assert!(matches!(
        Encoder::new(EncodeOptions { level: 99, frame_len: 4096 }),
        Err(EncodeError::Level(99))
    ));
}

#[test]
fn incompressible_frames_are_raw_and_the_others_are_not() {
    let bytes = plain(Kind::Mixed, 5, 524_288);
    let block = encoder(3, 262_144).encode(&bytes).unwrap();
    assert!(block.frames[0] < 131_072, "text became {} bytes", block.frames[0]);
    assert_eq!(block.frames[1], 262_144);
    // What is compressed already looks random to the histogram; the trial decides.
    let packed = encoder(19, 1_032_192).encode(&text(7, 1_032_192)).unwrap();
    let again = encoder(3, 65_536).encode(&packed.stored).unwrap();
    assert_eq!(again.stored, packed.stored);
}

#[test]
fn what_was_encoded_before_never_shows() {
    // The zstd context is reused, and libzstd salts its tables with what it saw; real machine code has the collisions
    // that would show it.
    let code = std::fs::read(std::env::current_exe().unwrap()).unwrap();
    let block = [text(3, 300_000), code[1_000_000..1_600_000].to_vec()].concat();
    for level in [-1, 1, 3, 4, 5, 7, 9, 12] {
        let mut used = encoder(level, 262_144);
        let fresh = used.encode(&block).unwrap();
        for seed in 0..3 {
            used.encode(&plain(Kind::Mixed, seed, 700_000)).unwrap();
            used.encode(&code[..1_000_000]).unwrap();
            assert_eq!(used.encode(&block).unwrap(), fresh, "level {level}");
        }
    }
}

/// The bytes of every flist depend on these: a change is a CHANGELOG entry.
#[test]
fn the_ids_of_known_blocks_are_pinned() {
    let id = |level, bytes: &[u8]| encoder(level, 262_144).encode(bytes).unwrap().id.to_string();
    assert_eq!(
        [
            id(3, &vec![0; 1_000_000]),
            id(3, &text(1, 600_000)),
            id(9, &text(1, 600_000)),
            id(3, &xorshift(1, 600_000))
        ],
        PINNED
    );
}

const PINNED: [&str; 4] = [
    "bafkreifgmxz7ykslqx4fy7o2iyusexkxepdfsb6dyr47oto4mndm7k2nhy",
    "bafkreid3cnlxmpy32ykstout2z3l66hvw57mnsnt7rtn532cax2gzb7q5y",
    "bafkreihjgnrvq7lpzerjaynzmadfcwhestsrpclnxp2qxem7k3wywg76p4",
    "bafkreicxvajgmxkmm2ufte22p2pglz5x6jn3bujmzcr5tzzjrw6ah655eu",
];

#[test]
fn a_failed_frame_does_not_spoil_the_next_one() {
    let good = encoder(3, 262_144).encode(&text(1, 200_000)).unwrap();
    let mut bad = good.stored.to_vec();
    let middle = bad.len() / 2;
    bad[middle..].fill(0xff);
    assert!(decode_frame(&bad, 200_000).is_err());
    assert_eq!(&decode_frame(&good.stored, 200_000).unwrap()[..], text(1, 200_000));
}

#[test]
fn appended_frames_are_refused() {
    let good = encoder(3, 262_144).encode(&text(1, 20_000)).unwrap().stored;
    let skippable = [0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0];
    let appended = [&good[..], &skippable].concat();
    assert!(matches!(decode_frame(&appended, 20_000), Err(DecodeError::NotOneFrame { .. })));
    assert!(matches!(decode_frame(&good, 20_001), Err(DecodeError::PlainLen { .. })));
    assert!(matches!(decode_frame(&good[..9], 20_000), Err(DecodeError::NotOneFrame { .. })));
    assert!(decode_frame(b"", 20_000).is_err());
}

#[test]
fn a_wrong_description_of_a_right_block_is_an_error() {
    let block = encoder(3, 65_536).encode(&text(1, 200_000)).unwrap();
    let held = verified(&block);
    let mut cuts = block.frames.clone();
    cuts[0] -= 1;
    cuts[1] += 1;
    let moved = BlockDesc::new(block.id, block.plain_len, block.frame_len, &cuts).unwrap();
    assert!(held.decode(&moved, 0).is_err() && held.decode(&moved, 1).is_err());
    cuts[1] += 1;
    let longer = BlockDesc::new(block.id, block.plain_len, block.frame_len, &cuts).unwrap();
    assert!(matches!(held.decode(&longer, 3), Err(DecodeError::StoredLen { .. })));
    assert!(matches!(held.decode(&block.desc(), 4), Err(DecodeError::NoSuchFrame { .. })));
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![Just(Kind::Zero), Just(Kind::Random), Just(Kind::Text), Just(Kind::Mixed)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_block_round_trips_and_is_deterministic(
        kind in kind(), seed: u64, len in 1..=MAX_STORED, frame_len in 4096..=MAX_STORED as u32, level in 1..6,
    ) {
        let bytes = plain(kind, seed, len);
        let block = encoder(level, frame_len).encode(&bytes).unwrap();
        prop_assert!(block.stored.len() <= len);
        prop_assert_eq!(&encoder(level, frame_len).encode(&bytes).unwrap(), &block);
        round_trip(&bytes, &block);
    }

    #[test]
    fn a_corrupted_frame_never_has_another_length(
        seed: u64, len in 100..40_000_usize, flips in prop::collection::vec((any::<prop::sample::Index>(), 1..=255_u8), 1..8),
    ) {
        let block = encoder(3, 65_536).encode(&text(seed, len)).unwrap();
        let mut stored = block.stored.to_vec();
        for (index, mask) in flips {
            let at = index.index(stored.len());
            stored[at] ^= mask;
        }
        if let Ok(plain) = decode_frame(&stored, len as u32) {
            prop_assert_eq!(plain.len(), len);
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes: Vec<u8>, plain_len in 1..=MAX_STORED as u32) {
        if let Ok(plain) = decode_frame(&bytes, plain_len) {
            prop_assert_eq!(plain.len(), plain_len as usize);
        }
    }
}
