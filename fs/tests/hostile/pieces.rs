//! Pieces of tree and map that do not decode to what they say, or say too much.

use g8_cache::Codec;
use g8_fs::format::piece::MAX_PLAIN;

use super::*;

/// One zstd frame of `bytes`.
fn frame(bytes: &[u8]) -> Vec<u8> {
    zstd::bulk::compress(bytes, 3).unwrap()
}

/// A frame whose header claims `declared` bytes in an 8-byte field (zstd format, 3.1.1.1), whatever it holds.
fn claiming(declared: u64, bytes: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0b1110_0000];
    frame.extend(declared.to_le_bytes());
    // One raw block, the last.
    let header = (bytes.len() as u32) << 3 | 1;
    frame.extend(&header.to_le_bytes()[..3]);
    frame.extend(bytes);
    frame
}

/// A frame without a content size: what a streaming compressor writes.
fn unsized_frame(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = zstd::stream::Encoder::new(Vec::new(), 3).unwrap();
    encoder.include_contentsize(false).unwrap();
    std::io::Write::write_all(&mut encoder, bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn a_piece_that_is_not_one_honest_frame_is_refused() {
    let (tree_len, short) = (Forge::of(&HONEST).tree.len(), vec![7; 5000]);
    let two = [frame(&short), frame(&short)].concat();
    let skippable = [frame(&short), vec![0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 9]].concat();
    let cut = frame(&lab::noise(1, 5000));
    let cases: [(&str, Vec<u8>, &str); 13] = [
        ("nothing", vec![], "not one zstd frame"),
        ("plain bytes", short.clone(), "not one zstd frame"),
        ("a frame without a size", unsized_frame(&short), "not one zstd frame"),
        ("a frame of nothing", frame(&[]), "declares 0"),
        ("a bomb", claiming(1 << 40, b"x"), "declares 1099511627776"),
        ("the largest bomb", claiming(u64::MAX - 2, b"x"), "declares"),
        ("one byte too much", claiming(MAX_PLAIN as u64 + 1, &short), "declares"),
        ("a frame that holds less than it says", claiming(5001, &short), "piece 0"),
        ("a frame that holds more than it says", claiming(4999, &short), "piece 0"),
        ("a frame with a tail", [frame(&short), vec![0]].concat(), "follow the zstd frame"),
        ("two frames", two, "follow the zstd frame"),
        ("a frame and a skippable one", skippable, "follow the zstd frame"),
        ("a cut frame", cut[..cut.len() - 1].to_vec(), "piece 0"),
    ];
    for (what, bytes, says) in cases {
        for kind in ["tree", "map"] {
            let mut forge = Forge::of(&HONEST);
            let piece = forge.put(Codec::Raw, bytes.clone()).cid();
            match kind {
                "tree" => (forge.root.tree, forge.root.tree_bytes) = (vec![piece], tree_len as u64),
                _ => (forge.root.map, forge.root.map_bytes) = (vec![piece], 5000),
            }
            refused(what, forge, kind, says);
        }
    }
}

#[test]
fn pieces_in_another_order_are_another_tree() {
    let forge = Forge::of(&HONEST);
    let (first, second) = forge.tree.split_at(4096);
    let parts = [frame(first), frame(second)];
    for (order, honest) in [([0, 1], true), ([1, 0], false), ([0, 0], false), ([1, 1], false)] {
        let mut forge = Forge::of(&HONEST);
        forge.root.tree = order.iter().map(|n| forge.put(Codec::Raw, parts[*n].clone()).cid()).collect();
        if honest {
            let (id, objects) = forge.seal();
            assert!(damaged_files(id, &objects).is_empty(), "the cuts are the packer's to choose");
            assert!(checked(id, &objects).problems.is_empty());
        } else {
            refused("pieces out of order", forge, "tree", "");
        }
    }
}

/// A root of 90 kB once cost 2 GiB: its pieces were the same one many times, and all were joined before anybody looked.
/// What they decode to is bounded by what the root says, and a tree by what its own superblock says.
#[test]
fn the_same_piece_many_times_is_decoded_only_as_far_as_it_may_be() {
    for (kind, says) in [("tree", "not an EROFS image"), ("map", "piece 2: the pieces are longer")] {
        let mut forge = Forge::of(&HONEST);
        let zeros = forge.put(Codec::Raw, frame(&vec![0; MAX_PLAIN])).cid();
        let (links, bytes) = match kind {
            "tree" => (&mut forge.root.tree, &mut forge.root.tree_bytes),
            _ => (&mut forge.root.map, &mut forge.root.map_bytes),
        };
        (*links, *bytes) = (vec![zeros; 20_000], 2 * MAX_PLAIN as u64);
        refused("a piece bomb", forge, kind, says);
    }
}
