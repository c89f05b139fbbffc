use g8_cache::{EncodeOptions, Encoder};
use proptest::prelude::*;

use super::*;
use crate::erofs::DeviceSizes;

const SPACES: DeviceSizes = DeviceSizes { small_blocks: 64, big_blocks: 64 };

fn sample() -> (Vec<u8>, Vec<Extent>, Vec<Extent>) {
    let mut encoder = Encoder::new(EncodeOptions { level: 3, frame_len: 4096 }).unwrap();
    let mut map = MapBuilder::new(4096);
    for len in [10_000usize, 5, 8192] {
        let index = map.add_block();
        map.set_block(index, &encoder.encode(&vec![len as u8; len]).unwrap());
    }
    let small = vec![
        Extent { start: 0, len: 100, block: 0, offset: 0 },
        Extent { start: 4096, len: 9000, block: 0, offset: 100 },
        Extent { start: 20_480, len: 5, block: 1, offset: 0 },
        Extent { start: 24_576, len: 50, block: 0, offset: 3 },
    ];
    let big = vec![Extent { start: 8192, len: 8192, block: 2, offset: 0 }];
    for e in small.iter().rev() {
        map.add_extent(Device::Small, *e);
    }
    for e in &big {
        map.add_extent(Device::Big, *e);
    }
    (map.finish(), small, big)
}

#[test]
fn a_map_survives_the_round_trip_sorted() {
    let (bytes, small, big) = sample();
    let map = decode(&bytes, SPACES).unwrap();
    assert_eq!(map.extents(Device::Small), small);
    assert_eq!(map.extents(Device::Big), big);
    assert_eq!((map.block_count(), map.frame_len()), (3, 4096));
}

#[test]
fn extents_that_continue_each_other_are_joined() {
    let mut map = MapBuilder::new(4096);
    let index = map.add_block();
    let mut encoder = Encoder::new(EncodeOptions { level: 3, frame_len: 4096 }).unwrap();
    map.set_block(index, &encoder.encode(&[1; 100]).unwrap());
    map.add_extent(Device::Small, Extent { start: 0, len: 10, block: 0, offset: 0 });
    map.add_extent(Device::Small, Extent { start: 10, len: 20, block: 0, offset: 10 });
    map.add_extent(Device::Small, Extent { start: 30, len: 20, block: 0, offset: 31 });
    let map = decode(&map.finish(), SPACES).unwrap();
    assert_eq!(map.extents(Device::Small).len(), 2);
}

#[test]
fn parts_cover_a_range_without_gaps() {
    let (bytes, small, _) = sample();
    let map = decode(&bytes, SPACES).unwrap();
    for (address, len) in [(0, 262_144), (50, 1), (99, 2), (100, 4000), (4095, 9002), (250_000, 10)] {
        let mut at = address;
        for part in map.parts(Device::Small, address, len) {
            for offset in 0..part.len {
                let here = small.iter().find(|e| (e.start..e.end()).contains(&(at + offset)));
                let expected = here.map(|e| (e.block, u64::from(e.offset) + at + offset - e.start));
                let got = match part.place {
                    Place::Zero => None,
                    Place::Block { block, offset: o } => Some((block, u64::from(o) + offset)),
                };
                assert_eq!(got, expected);
            }
            at += part.len;
        }
        assert_eq!(at, address + len);
    }
}

#[test]
fn every_truncation_and_any_tail_is_refused() {
    let (bytes, _, _) = sample();
    for cut in 0..bytes.len() {
        decode(&bytes[..cut], SPACES).unwrap_err();
    }
    let mut longer = bytes;
    longer.push(0);
    decode(&longer, SPACES).unwrap_err();
}

#[test]
fn an_extent_beyond_its_space_is_refused() {
    let (bytes, _, _) = sample();
    decode(&bytes, DeviceSizes { small_blocks: 6, big_blocks: 64 }).unwrap_err();
    decode(&bytes, DeviceSizes { small_blocks: 64, big_blocks: 3 }).unwrap_err();
}

proptest! {
    #[test]
    fn damaged_maps_never_panic(at in 0usize..500, with in any::<u8>(), cut in 0usize..500) {
        let (mut bytes, _, _) = sample();
        let len = bytes.len();
        bytes[at % len] ^= with;
        bytes.truncate(len - cut % 20);
        if let Ok(map) = decode(&bytes, SPACES) {
            for device in [Device::Small, Device::Big] {
                for part in map.parts(device, 0, 64 * 4096) {
                    if let Place::Block { block, offset } = part.place {
                        prop_assert!(u64::from(offset) + part.len <= u64::from(map.block(block).plain_len()));
                    }
                }
            }
        }
    }
}
