//! Hostile images: each broken rule is told by its name, and nothing ever panics or hangs.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// Asks every question about every inode there could be; the answers do not matter, only that they come.
fn poke(tree: &Tree<&[u8]>) {
    for slot in 0..tree.bytes().len() as u64 / 32 + 2 {
        let Ok(inode) = tree.inode(Nid(slot)) else { continue };
        if let Ok(xattrs) = tree.xattrs(&inode) {
            xattrs.for_each(drop);
        }
        let _ = tree.xattr(&inode, b"user.absent");
        let _ = tree.read_link(&inode);
        for name in [b"sub".as_slice(), b".", b"tiny", b"zzz"] {
            let _ = tree.lookup(&inode, name);
        }
        for cookie in [0, 3, 600, u64::MAX] {
            if let Ok(entries) = tree.read_dir(&inode, cookie) {
                entries.for_each(drop);
            }
        }
        // The public fields of an inode are the caller's to change.
        for strange in [Inode { size: u64::MAX, ..inode }, Inode { nid: Nid(u64::MAX), ..inode }] {
            let _ = (tree.read_link(&strange), tree.lookup(&strange, b"x"), tree.map(&strange, 1 << 63));
            let _ = tree.read_dir(&strange, 1 << 40).map(|entries| entries.for_each(drop));
            let _ = tree.xattrs(&strange).map(|xattrs| xattrs.for_each(drop));
        }
        for offset in [0, 4095, 4096, 1 << 31, inode.size.wrapping_sub(1)] {
            if let Ok(mapping) = tree.map(&inode, offset) {
                assert!(mapping.len > 0 && mapping.len <= inode.size - offset);
            }
        }
    }
}

/// What the validator promises to whoever walks an accepted tree.
fn walk(tree: &Tree<&[u8]>) {
    let mut pending = vec![tree.root()];
    let mut seen = 0;
    while let Some(nid) = pending.pop() {
        let dir = tree.inode(nid).unwrap();
        for entry in tree.read_dir(&dir, 0).unwrap() {
            let entry = entry.unwrap();
            assert_eq!(tree.lookup(&dir, entry.name).unwrap(), Some(entry.nid));
            let inode = tree.inode(entry.nid).unwrap();
            tree.xattrs(&inode).unwrap().for_each(|xattr| _ = xattr.unwrap());
            match inode.kind() {
                FileKind::Directory if matches!(entry.name, b"." | b"..") => {}
                FileKind::Directory => pending.push(entry.nid),
                FileKind::Symlink => _ = tree.read_link(&inode).unwrap(),
                FileKind::Regular if inode.size > 0 => _ = tree.map(&inode, inode.size - 1).unwrap(),
                FileKind::Regular
                | FileKind::CharDevice
                | FileKind::BlockDevice
                | FileKind::Fifo
                | FileKind::Socket => {}
            }
            seen += 1;
            assert!(seen < 1000, "an accepted tree ends");
        }
    }
}

#[test]
fn no_damaged_byte_makes_anything_panic() {
    let mut tree = small_tree();
    tree.add(NodeId(1), b"long link", NodeKind::Symlink { target: vec![b'l'; 4090] });
    let good = tree.write();
    let (mut accepted, mut refused) = (0, 0);
    for at in 0..good.len() {
        for flip in [1, 2, 4, 8, 16, 32, 64, 128, 255] {
            let mut image = good.clone();
            image[at] ^= flip;
            reseal(&mut image);
            if image == good {
                continue; // The checksum's own bytes.
            }
            let Ok(tree) = Tree::open(image.as_slice()) else { continue };
            poke(&tree);
            if validate(&tree).is_ok() {
                walk(&tree);
                accepted += 1;
            } else {
                refused += 1;
            }
        }
    }
    // Owners, times, permissions, names, targets and xattr values may change; the rest may not.
    let in_target = 4090 * 9;
    assert!(accepted - in_target < refused / 10, "{accepted} accepted, {refused} refused");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn no_damaged_fields_make_anything_panic(
        damage in vec((any::<prop::sample::Index>(), 0..4_u32, prop_oneof![0..100_u64, any::<u64>(), u64::MAX - 40..]), 1..5),
    ) {
        let mut image = small_tree().write();
        for (at, width, value) in damage {
            let at = at.index(image.len() - 8);
            // Fields are aligned, so damage to whole ones is.
            let at = at & !((1 << width) - 1);
            image[at..][..1 << width].copy_from_slice(&value.to_le_bytes()[..1 << width]);
        }
        reseal(&mut image);
        if let Ok(tree) = Tree::open(image.as_slice()) {
            poke(&tree);
            if validate(&tree).is_ok() {
                walk(&tree);
            }
        }
    }
}

#[test]
fn no_cut_makes_anything_panic() {
    let good = small_tree().write();
    for len in (0..good.len()).step_by(61).chain([1023, 1024, 1151, 4095, 4096]) {
        assert!(Tree::open(&good[..len]).is_err(), "{len} bytes");
    }
}

/// The fault that open or validate finds after `change`.
fn fault(tree: &Builder, change: impl FnOnce(&mut [u8], &dyn Fn(u32) -> usize)) -> Fault {
    let good = tree.write();
    let opened = Tree::open(good.as_slice()).unwrap();
    let mut image = good.clone();
    // Node n is the inode with serial n + 1.
    let places: Vec<usize> = (0..good.len() as u64 / 32)
        .filter_map(|slot| opened.inode(Nid(slot)).ok())
        .fold(vec![0; tree.nodes.len()], |mut places, inode| {
            if let Some(place) = places.get_mut((inode.serial as usize).wrapping_sub(1))
                && *place == 0
            {
                *place = inode.nid.offset() as usize;
            }
            places
        });
    change(&mut image, &|node| places[node as usize]);
    reseal(&mut image);
    match Tree::open(image.as_slice()).and_then(|tree| validate(&tree)) {
        Err(TreeError::Superblock { fault, .. } | TreeError::Damaged { fault, .. }) => fault,
        other => panic!("{other:?}"),
    }
}

#[test]
fn superblock_faults_are_named() {
    let tree = small_tree();
    let at = |offset: usize, value: u8| fault(&tree, |image, _| image[offset] = value);
    assert_eq!(at(1024 + 8, 7), Fault::UnknownFeature);
    assert_eq!(at(1024 + 8, 2), Fault::Checksum);
    assert_eq!(at(1024 + 12, 13), Fault::BlockSize);
    assert_eq!(at(1024 + 13, 1), Fault::ExtraSlots);
    assert_eq!(at(1024 + 14, 0), Fault::Mode);
    assert_eq!(at(1024 + 16, 13), Fault::InodeCount);
    assert_eq!(at(1024 + 35, 0xff), Fault::Nanoseconds);
    assert_eq!(at(1024 + 36, 99), Fault::ImageSize);
    assert_eq!(at(1024 + 40, 1), Fault::MetaBlock);
    assert_eq!(at(1024 + 44, 99), Fault::Outside);
    assert_eq!(at(1024 + 79, 1), Fault::VolumeName);
    assert_eq!(at(1024 + 80, 8), Fault::MissingFeature);
    assert_eq!(at(1024 + 86, 1), Fault::DeviceTable);
    assert_eq!(at(1024 + 88, 10), Fault::DeviceTable);
    assert_eq!(at(1024 + 90, 1), Fault::Reserved);
    assert_eq!(at(1152, b'S'), Fault::DeviceTag);
    assert_eq!(at(1152 + 68, 0), Fault::DeviceTable);
    assert_eq!(at(1152 + 72, 1), Fault::Reserved);
    assert_eq!(at(0, 1), Fault::Padding);
    let mut image = tree.write();
    image[1024 + 80] |= 16;
    reseal(&mut image);
    assert_eq!(Tree::open(&image).unwrap_err(), TreeError::Unsupported { features: 16 });
    image[1024] = 0;
    assert_eq!(Tree::open(&image).unwrap_err(), TreeError::NotErofs);
}

#[test]
fn inode_faults_are_named() {
    let tree = small_tree();
    // Node 3 `tiny` compact with tail, 5 `sparse` extended with chunks, 8 `null`, 10 `pipe`, 7 `link`.
    let at = |node: u32, offset: usize, value: u8| {
        fault(&tree, |image, place| image[place(node) + offset] = value)
    };
    assert_eq!(at(3, 0, 0x20), Fault::InodeFormat);
    assert_eq!(at(3, 0, 0x02), Fault::InodeFormat);
    assert_eq!(at(3, 2, 1), Fault::XattrArea);
    assert_eq!(at(3, 5, 0x81 | 0x70), Fault::Mode);
    assert_eq!(at(3, 6, 1), Fault::ReachedTwice);
    assert_eq!(at(3, 6, 3), Fault::LinkCount);
    assert_eq!(at(4, 6, 0), Fault::LinkCount);
    assert_eq!(at(1, 6, 4), Fault::LinkCount);
    assert_eq!(at(3, 12, 1), Fault::CompactMtime);
    assert_eq!(at(3, 16, 1), Fault::StartBlock);
    assert_eq!(at(4, 16, 1), Fault::StartBlock);
    assert_eq!(at(3, 28, 1), Fault::Reserved);
    assert_eq!(at(5, 6, 1), Fault::Reserved);
    assert_eq!(at(5, 63, 1), Fault::Reserved);
    assert_eq!(at(5, 43, 0xff), Fault::Nanoseconds);
    assert_eq!(at(5, 15, 0x80), Fault::Size);
    assert_eq!(at(5, 13, 1), Fault::Outside);
    assert_eq!(at(5, 16, 0), Fault::ChunkFormat);
    assert_eq!(at(5, 17, 1), Fault::ChunkFormat);
    assert_eq!(at(8, 8, 1), Fault::Size);
    assert_eq!(at(10, 16, 1), Fault::Reserved);
    assert_eq!(at(7, 32, 0), Fault::SymlinkTarget);
    assert_eq!(at(3, 9, 8), Fault::InlineContent);
    assert_eq!(at(3, 9, 15), Fault::InlineTail);
}

#[test]
fn chunk_faults_are_named() {
    let mut tree = Builder::new();
    tree.add(NodeId::ROOT, b"f", chunked(8192, 12, &[Some((Device::Small, 1)), None]));
    let at = |offset: usize, value: u8| fault(&tree, |image, place| image[place(1) + 32 + offset] = value);
    assert_eq!(at(0, 1), Fault::Reserved);
    assert_eq!(at(2, 3), Fault::ChunkDevice);
    assert_eq!(at(2, 0), Fault::ChunkDevice);
    assert_eq!(at(4, 64), Fault::ChunkOutside);
    assert_eq!(at(10, 1), Fault::ChunkDevice);
}

#[test]
fn directory_faults_are_named() {
    let tree = small_tree();
    // Node 2 `inner` has xattrs, so its entries (`.`, `..`, `tiny`) start behind 16 more bytes.
    let entries = 32 + 16;
    let at =
        |offset: usize, value: u8| fault(&tree, |image, place| image[place(2) + entries + offset] = value);
    assert_eq!(at(8, 35), Fault::NameOffset);
    assert_eq!(at(8, 0), Fault::NameOffset);
    assert_eq!(at(20, 0xff), Fault::NameOffset);
    assert_eq!(at(20, 36), Fault::Name);
    assert_eq!(at(32, 37), Fault::Name);
    assert_eq!(at(39, b'!'), Fault::NameOrder);
    assert_eq!(at(11, 1), Fault::Reserved);
    assert_eq!(at(10, 1), Fault::Dot);
    assert_eq!(at(0, 44), Fault::Dot);
    assert_eq!(at(12, 0), Fault::DotDot);
    assert_eq!(at(36, b'-'), Fault::ReachedTwice);
    assert_eq!(at(34, 9), Fault::DirentType);
    assert_eq!(at(34, 7), Fault::DirentType);
    assert_eq!(at(39, b'/'), Fault::Name);
    assert_eq!(at(39, 0), Fault::Name);
    assert_eq!(at(42, 0), Fault::Padding);
    // Another directory, and the middle of another inode.
    let root = fault(&tree, |image, place| {
        let entry = place(2) + entries + 24;
        image[entry] = 44;
        image[entry + 10] = 2;
    });
    assert_eq!(root, Fault::ReachedTwice);
    let no_dot = fault(&tree, |image, place| {
        let (entry, tiny) = (place(2) + entries, place(3));
        // A third name of `tiny` in place of `.`.
        image.copy_within(entry + 24..entry + 32, entry);
        image[entry + 10] = 1;
        image[entry + 36] = b'-';
        image[tiny + 6] = 3;
    });
    assert_eq!(no_dot, Fault::Dot);
}

#[test]
fn a_directory_with_two_names_is_refused() {
    let mut tree = Builder::new();
    tree.dir(NodeId::ROOT, b"a");
    tree.dir(NodeId::ROOT, b"b");
    let found = fault(&tree, |image, place| {
        // Entries `.`, `..`, `a`, `b`: let `b` be `a`, too.
        let entry = place(0) + 32 + 3 * 12;
        let a = (place(1) / 32) as u64;
        image[entry..entry + 8].copy_from_slice(&a.to_le_bytes());
    });
    assert_eq!(found, Fault::ReachedTwice);
}

#[test]
fn xattr_faults_are_named() {
    let tree = small_tree();
    // Node 3: header, id of the shared label, then `trusted.t`, `user.own`.
    let at = |offset: usize, value: u8| fault(&tree, |image, place| image[place(3) + 32 + offset] = value);
    assert_eq!(at(0, 1), Fault::Reserved);
    assert_eq!(at(11, 1), Fault::Reserved);
    assert_eq!(at(4, 99), Fault::XattrArea);
    assert_eq!(at(12, 1), Fault::XattrArea);
    assert_eq!(at(14, 0xff), Fault::Outside);
    assert_eq!(at(16, 0xff), Fault::XattrArea);
    assert_eq!(at(17, 5), Fault::XattrName);
    assert_eq!(at(20, 0), Fault::XattrName);
    let mut twice = Builder::new();
    twice.xattr(NodeId::ROOT, "user.a", b"");
    twice.xattr(NodeId::ROOT, "user.b", b"");
    let found = fault(&twice, |image, place| image[place(0) + 32 + 12 + 12] = b'a');
    assert_eq!(found, Fault::XattrTwice);
}

#[test]
fn two_inodes_cannot_share_bytes() {
    let mut tree = Builder::new();
    for name in [b"a", b"b"] {
        tree.add(NodeId::ROOT, name, NodeKind::Symlink { target: vec![b'x'; 4090] });
    }
    let found = fault(&tree, |image, place| {
        let (a, b) = (place(1), place(2));
        image.copy_within(a + 16..a + 20, b + 16);
    });
    assert_eq!(found, Fault::Overlap);
    let tail = fault(&tree, |image, _| {
        let end = image.len() - 1;
        image[end] = 1;
    });
    assert_eq!(tail, Fault::Padding);
}
