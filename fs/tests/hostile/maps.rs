//! Block maps whose numbers leave their containers.

use g8_cache::MAX_STORED;

use super::forge::RawMap;
use super::*;

fn refused_map(what: &str, change: impl FnOnce(&mut RawMap)) {
    let mut forge = Forge::of(&HONEST);
    change(&mut forge.map);
    let map = forge.map.encode();
    forge.link_map(&map);
    refused(what, forge, "map", "block map");
}

type Lie = (&'static str, fn(&mut RawMap));

#[test]
fn lengths_and_counts_that_cannot_be_are_refused() {
    let lies: [Lie; 21] = [
        ("another magic", |m| m.magic[0] ^= 1),
        ("a later version", |m| m.magic[7] += 1),
        ("nothing but a magic", |m| *m = RawMap::parse(&[&m.magic[..], &[0, 0, 0, 0]].concat())),
        ("no frame length", |m| m.frame_len = 0),
        ("a frame length below a page", |m| m.frame_len = 2048),
        ("a frame length off the pages", |m| m.frame_len = 65_537),
        ("a frame longer than any block", |m| m.frame_len = MAX_STORED as u64 + 4096),
        ("an absurd frame length", |m| m.frame_len = u64::MAX),
        ("more blocks than bytes", |m| m.block_count = 1 << 60),
        ("one block more than there are", |m| m.block_count += 1),
        ("one block less than there are", |m| m.block_count -= 1),
        ("2^32 blocks", |m| m.block_count = 1 << 32),
        ("a block without bytes", |m| m.blocks[0].plain_len = 0),
        ("a block of 2^63 bytes", |m| m.blocks[0].plain_len = 1 << 63),
        ("a block larger than any", |m| m.blocks[0].plain_len = MAX_STORED as u64 + 1),
        ("a frame without bytes", |m| m.blocks[0].frames[0] = 0),
        ("a frame that grew", |m| m.blocks[0].frames[0] = m.frame_len + 1),
        ("more extents than bytes", |m| m.extent_counts[0] = 1 << 61),
        ("one extent more than there are", |m| m.extent_counts[1] += 1),
        ("one extent less than there are", |m| m.extent_counts[1] -= 1),
        ("a tail", |m| m.tail.push(0)),
    ];
    for (what, lie) in lies {
        refused_map(what, lie);
    }
}

#[test]
fn extents_outside_their_space_or_block_are_refused() {
    let lies: [Lie; 14] = [
        ("an empty extent", |m| m.extents[0][0].len = 0),
        ("an extent larger than any block", |m| m.extents[0][0].len = MAX_STORED as u64 + 1),
        ("an extent of 2^64 - 1 bytes", |m| m.extents[0][0].len = u64::MAX),
        ("a start beyond the space", |m| m.extents[0][0].gap = 1 << 45),
        ("a start that wraps to overlap the one before", |m| m.extents[0][1].gap = u64::MAX - 4095),
        ("an end that wraps", |m| m.extents[1][0].gap = u64::MAX),
        ("a last extent that leaves the space", |m| m.extents[1].last_mut().unwrap().gap += 4096),
        ("one that pushes the others out", |m| m.extents[1][0].gap += 1 << 22),
        ("a block beyond the table", |m| m.extents[0][0].block = m.block_count * 2),
        ("a block before the table", |m| m.extents[0][0].block = 1),
        ("a block number that wraps", |m| m.extents[0][1].block = u64::MAX - 1),
        ("an offset beyond the block", |m| m.extents[0][0].offset = m.blocks[0].plain_len * 2),
        ("an offset before the block", |m| m.extents[0][0].offset = 1),
        ("an offset that wraps", |m| m.extents[0][0].offset = u64::MAX - 1),
    ];
    for (what, lie) in lies {
        refused_map(what, lie);
    }
}

#[test]
fn a_map_cut_anywhere_is_refused() {
    let whole = Forge::of(&HONEST).map.encode();
    for cut in (0..whole.len()).step_by(7) {
        let mut forge = Forge::of(&HONEST);
        forge.link_map(&whole[..cut]);
        let (id, objects) = forge.seal();
        let opened = runtime().block_on(lab::open(id, &lab::memory(), &lab::from_map(&objects), SOON));
        assert!(opened.is_err(), "cut at {cut}");
    }
}

#[test]
fn numbers_in_more_bytes_than_they_need_are_refused() {
    refused_map("a long varint", |m| {
        // The tail becomes part of the big space's first number: 0x80 0x00 is a zero in two bytes.
        m.extents[1].clear();
        m.extent_counts[1] = 0;
        let mut bytes = m.encode();
        bytes.pop();
        bytes.extend([0x80, 0x00]);
        m.tail = bytes.split_off(8);
        (m.frame_len, m.block_count) = (0, 0);
        // Only magic and tail are left, and the former fields are zeros in front of it.
        m.blocks.clear();
        m.extents = [vec![], vec![]];
    });
}
