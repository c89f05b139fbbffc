//! What the fuzz targets do with bytes from a stranger, shared with the smoke test on the stable compiler.
//!
//! Nothing may panic, and what is accepted must keep its promises: it encodes to the same bytes, stays in its bounds,
//! can be walked to its end, and decodes to the lengths it declares.

use std::collections::{HashMap, HashSet};

use g8_cache::{BlockDesc, BlockId, Codec, StoredBlock};
use g8_fs::car::parse::{self, Parsed};
use g8_fs::car::{self, Index, Limits};
use g8_fs::elf;
use g8_fs::erofs::{self, BLOCK_SIZE, DeviceSizes, FileKind, Inode, Nid, Summary, Tree};
use g8_fs::format::{BlockMap, Part, Place, Profile, Root, map, piece, profile, root, shard};

/// The bytes of a root.
pub fn fuzz_root(data: &[u8]) {
    let Ok(root) = Root::from_bytes(data) else { return };
    assert_eq!(root.to_bytes().expect("what was decoded can be encoded"), data, "one root has one encoding");
    assert_eq!((root.version, root.kind.as_str()), (root::VERSION, root::KIND));
    assert!(root.tree_bytes <= root::MAX_TREE_BYTES && root.map_bytes <= root::MAX_MAP_BYTES);
    let raw = [root.tree_pieces(), root.map_pieces()].map(|ids| ids.expect("links were judged"));
    assert!(raw.iter().flatten().all(|id| id.codec() == Codec::Raw));
    let shards = root.shard_ids().expect("links were judged");
    assert!(shards.iter().all(|id| id.codec() == Codec::DagCbor));
    assert_eq!(shards.len() as u64, root.blocks.div_ceil(shard::MAX_LINKS as u64));
}

/// The bytes of a profile.
pub fn fuzz_profile(data: &[u8]) {
    let Ok(profile) = Profile::from_bytes(data) else { return };
    assert_eq!(
        profile.to_bytes().expect("what was decoded can be encoded"),
        data,
        "one profile, one encoding"
    );
    assert!(profile.blocks.len() <= profile::MAX_BLOCKS && profile.label.len() <= profile::MAX_LABEL);
    assert_eq!(profile.blocks.iter().collect::<HashSet<_>>().len(), profile.blocks.len());
    let flist = profile.flist().expect("the link was judged");
    let count = profile.blocks.iter().max().map_or(0, |last| *last as usize + 1);
    assert!(profile.judge_for(flist, count).is_ok());
    assert!(count == 0 || profile.judge_for(flist, count - 1).is_err());
}

/// The beginning of a file, and behind it what is taken for its dynamic section.
pub fn fuzz_elf(data: &[u8]) {
    let Some(head) = elf::Head::parse(data) else { return };
    assert!(head.dynamic.end - head.dynamic.start <= elf::MAX_DYNAMIC);
    assert!(head.relocated.start <= head.relocated.end);
    assert!(head.needed(data).len() <= data.len() / 16);
    for range in head.interpreter.iter().chain([&head.dynamic]) {
        let part = usize::try_from(range.start).ok().and_then(|start| data.get(start..));
        if let Some(name) = part.and_then(elf::string) {
            assert!(!name.is_empty() && !name.contains(&0));
        }
    }
}

/// The bytes of a CAR.
pub fn fuzz_car(data: &[u8]) {
    if let Ok(Parsed::Whole(roots, len)) = parse::header(data) {
        assert!(len <= data.len() && len <= car::MAX_HEADER + 10);
        assert!(roots.len() <= car::MAX_HEADER / 30);
    }
    if let Ok(Parsed::Short(need, _)) = parse::section(data) {
        assert!(need > data.len() && need <= car::MAX_SECTION + 10);
    }
    let Ok(index) = Index::read(data, Limits::default()) else { return };
    for id in index.ids() {
        let (offset, len) = index.find(id).expect("it is listed");
        let bytes = &data[offset as usize..offset as usize + len];
        assert_eq!(BlockId::of(id.codec(), bytes), *id, "only what is proven is found");
    }
    assert_eq!(index.bytes(), data.len() as u64);
}

/// The bytes of a shard.
pub fn fuzz_shard(data: &[u8]) {
    let Ok(links) = shard::decode(data) else { return };
    assert!((1..=shard::MAX_LINKS).contains(&links.len()));
    assert!(links.iter().all(|id| id.codec() == Codec::Raw));
    assert_eq!(
        shard::encode(&links).expect("what was decoded can be encoded"),
        data,
        "one shard has one encoding"
    );
}

/// Blocks of `small` and of `big`, 4 bytes each, then the bytes of a block map.
pub fn fuzz_map(data: &[u8]) {
    let Some((sizes, data)) = data.split_first_chunk::<8>() else { return };
    let [small_blocks, big_blocks] =
        [&sizes[..4], &sizes[4..]].map(|size| u32::from_le_bytes(size.try_into().expect("four bytes")));
    let sizes = DeviceSizes { small_blocks, big_blocks };
    let Ok(map) = map::decode(data, sizes) else { return };
    let mut stored = 0;
    for index in 0..map.block_count() as u32 {
        let block = map.block(index);
        assert_eq!((block.id(), block.frame_len()), (map.block_id(index), map.frame_len()));
        stored += u64::from(block.stored_len());
        assert_eq!(block.spans().map(|span| span.plain_len).sum::<u32>(), block.plain_len());
    }
    assert_eq!(stored, map.stored_bytes());
    for device in [erofs::Device::Small, erofs::Device::Big] {
        judge_space(&map, device, u64::from(sizes.blocks(device)) * BLOCK_SIZE);
    }
}

/// The extents lie in the space and in their blocks, and every range is tiled by its parts.
fn judge_space(map: &BlockMap, device: erofs::Device, space: u64) {
    let extents = map.extents(device);
    let mut at = 0;
    for extent in extents {
        assert!(extent.len > 0 && extent.start >= at && extent.end() <= space, "{extent:?}");
        at = extent.end();
    }
    let tile = |address: u64, len: u64| {
        let mut sum = 0;
        for Part { place, len } in map.parts(device, address, len) {
            assert!(len > 0);
            if let Place::Block { block, offset } = place {
                assert!(u64::from(offset) + len <= u64::from(map.block(block).plain_len()));
            }
            sum += len;
        }
        assert_eq!(sum, len, "{len} bytes at {address}");
    };
    tile(0, space);
    for extent in extents.iter().take(50) {
        for (address, len) in
            [(extent.start, 1), (extent.start.saturating_sub(1), 3), (extent.end() - 1, 9000)]
        {
            tile(address, len);
        }
    }
    tile(u64::MAX - 5, 5);
}

/// The bytes of a tree. Its checksum is made right first, or a fuzzer would find nothing else.
pub fn fuzz_tree(data: &[u8]) {
    let mut image = data.to_vec();
    if image.len() >= 4096 {
        image[1028..1032].fill(0);
        let sum = !crc32c::crc32c(&image[1024..4096]);
        image[1028..1032].copy_from_slice(&sum.to_le_bytes());
    }
    let Ok(tree) = Tree::open(image.as_slice()) else { return };
    for slot in 0..image.len() as u64 / 32 + 2 {
        ask(&tree, Nid(slot));
    }
    ask(&tree, Nid(u64::MAX));
    if let Ok(summary) = erofs::validate(&tree) {
        assert_eq!(walk(&tree), summary);
    }
}

/// Every question about an inode, valid or not: only that the answers come matters.
fn ask(tree: &Tree<&[u8]>, nid: Nid) {
    let Ok(inode) = tree.inode(nid) else { return };
    if let Ok(xattrs) = tree.xattrs(&inode) {
        xattrs.for_each(drop);
    }
    let _ = (tree.read_link(&inode), tree.lookup(&inode, b"m"), tree.xattr(&inode, b"user.m"));
    for cookie in [0, 7, 600, u64::MAX] {
        if let Ok(entries) = tree.read_dir(&inode, cookie) {
            entries.for_each(drop);
        }
    }
    for offset in [0, 4095, 1 << 40, inode.size.wrapping_sub(1)] {
        if let Ok(mapping) = tree.map(&inode, offset) {
            assert!(mapping.len > 0 && mapping.len <= inode.size - offset);
        }
    }
}

/// Walks an accepted tree to its end, in which nothing may fail, and counts what is there.
fn walk(tree: &Tree<&[u8]>) -> Summary {
    let mut found = Summary::default();
    let mut seen = HashSet::new();
    let mut names: HashMap<Nid, u32> = HashMap::new();
    let mut pending = vec![tree.root()];
    while let Some(nid) = pending.pop() {
        assert!(seen.insert(nid), "a directory is reached once");
        let dir = tree.inode(nid).expect("validated");
        count(tree, &dir, &mut found);
        for entry in tree.read_dir(&dir, 0).expect("validated") {
            let entry = entry.expect("validated");
            assert_eq!(tree.lookup(&dir, entry.name).expect("validated"), Some(entry.nid));
            assert!(!entry.name.contains(&b'/') && !entry.name.contains(&0) && !entry.name.is_empty());
            if matches!(entry.name, b"." | b"..") {
                continue;
            }
            let inode = tree.inode(entry.nid).expect("validated");
            assert_eq!(inode.kind(), entry.kind);
            if inode.is_dir() {
                pending.push(entry.nid);
                continue;
            }
            *names.entry(entry.nid).or_default() += 1;
            if seen.insert(entry.nid) {
                count(tree, &inode, &mut found);
            }
        }
    }
    for (nid, names) in names {
        assert_eq!(tree.inode(nid).expect("validated").nlink, names, "link count of {nid}");
    }
    found
}

fn count(tree: &Tree<&[u8]>, inode: &Inode, found: &mut Summary) {
    found.inodes += 1;
    let mut xattrs = tree.xattrs(inode).expect("validated").peekable();
    found.has_xattrs |= xattrs.peek().is_some();
    xattrs.for_each(|xattr| _ = xattr.expect("validated"));
    match inode.kind() {
        FileKind::Directory => found.directories += 1,
        FileKind::Symlink => {
            found.symlinks += 1;
            assert_eq!(tree.read_link(inode).expect("validated").len() as u64, inode.size);
        }
        FileKind::Regular => {
            found.files += 1;
            found.content_bytes = found.content_bytes.saturating_add(inode.size);
            contents(tree, inode);
        }
        FileKind::CharDevice | FileKind::BlockDevice | FileKind::Fifo | FileKind::Socket => found.others += 1,
    }
}

/// Every byte of the file has a place, and the place is in its device.
fn contents(tree: &Tree<&[u8]>, inode: &Inode) {
    let mut at = 0;
    while at < inode.size {
        let mapping = tree.map(inode, at).expect("validated");
        assert!(mapping.len > 0 && mapping.len <= inode.size - at);
        match mapping.place {
            erofs::Place::Hole => {}
            erofs::Place::Inline(bytes) => assert!(bytes.len() as u64 >= mapping.len),
            erofs::Place::Device { device, address } => {
                let blocks = u64::from(tree.devices().blocks(device));
                assert!(address + mapping.len <= blocks * BLOCK_SIZE, "{device:?} {address}");
            }
        }
        at += mapping.len;
    }
}

/// A description (plain length, frame length, number of frames, stored length of each; 4 bytes each), then a block.
/// The block goes through the one decoder for all frames, and through that for pieces.
pub fn fuzz_frame(data: &[u8]) {
    let mut rest = data;
    let mut number = || {
        let (number, left) = rest.split_first_chunk::<4>()?;
        rest = left;
        Some(u32::from_le_bytes(*number))
    };
    let (Some(plain_len), Some(frame_len), Some(count)) = (number(), number(), number()) else { return };
    let Some(frames) = (0..count.min(300)).map(|_| number()).collect::<Option<Vec<u32>>>() else { return };
    if let Ok(plain) = piece::decode("tree", &[rest], plain_len.into()) {
        assert_eq!(plain.len() as u64, u64::from(plain_len));
    }
    let id = BlockId::of(Codec::Raw, rest);
    let Ok(desc) = BlockDesc::new(id, plain_len, frame_len, &frames) else { return };
    let Ok(block) = StoredBlock::new(id, rest.to_vec()) else { return };
    let block = block.verify().expect("the id is that of the bytes");
    let mut joined = Vec::new();
    for span in desc.spans() {
        if let Ok(plain) = block.decode(&desc, span.index as usize) {
            assert_eq!(plain.len(), span.plain_len as usize, "a frame has the length it is described with");
            joined.extend_from_slice(&plain);
        }
    }
    assert!(block.decode(&desc, frames.len()).is_err());
    if let Ok(plain) = block.decode_block(&desc) {
        assert!(plain.len() == plain_len as usize && plain[..] == joined[..]);
    }
}
