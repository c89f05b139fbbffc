//! What is the same is stored once: in one tree, between two trees, and from one run to the next.

use super::*;

#[test]
fn a_second_pack_stores_nothing_new() {
    let lab = Lab::new();
    let tree = lab.tree("t");
    mixed(&tree);
    let store = lab.store("s");
    let first = pack_into(&tree, &threads(2), &store).unwrap();
    let files = files_of(store.root());
    let second = pack_into(&tree, &threads(4), &store).unwrap();
    assert_eq!((second.cid, second.new_bytes), (first.cid, 0));
    assert_eq!(first.new_bytes, first.stored_bytes + first.metadata_bytes);
    assert_eq!(files_of(store.root()), files);
}

#[test]
fn the_store_holds_exactly_what_the_root_reaches() {
    let lab = Lab::new();
    let tree = lab.tree("t");
    mixed(&tree);
    let store = lab.store("s");
    let report = pack_into(&tree, &threads(3), &store).unwrap();
    let packed = Packed::open(&store, report.cid);
    let mut reached: Vec<PathBuf> = packed.objects(report.cid).iter().map(|id| store.path(id)).collect();
    reached.sort();
    assert_eq!(files_of(store.root()), reached);
    let described: Vec<BlockId> =
        (0..packed.map.block_count() as u32).map(|n| packed.map.block_id(n)).collect();
    assert_eq!(packed.blocks, described, "shards and block table name the same blocks");
    assert_eq!(packed.root.stored_bytes, report.stored_bytes);
    assert_eq!(packed.root.content_bytes, report.content_bytes);
}

#[test]
fn identical_files_share_a_run() {
    let lab = Lab::new();
    let tree = lab.tree("t");
    for (name, seed) in [("a/one", 1), ("b/two", 1), ("b/other", 2), ("c/three", 1)] {
        write(&tree, name, &noise(seed, 50_000));
    }
    write(&tree, "c/large", &noise(3, 2 << 20));
    write(&tree, "d/large", &noise(3, 2 << 20));
    let store = lab.store("s");
    let report = pack_into(&tree, &threads(2), &store).unwrap();
    let packed = Packed::open(&store, report.cid);
    assert_eq!(packed.place("a/one"), packed.place("b/two"));
    assert_eq!(packed.place("a/one"), packed.place("c/three"));
    assert_ne!(packed.place("a/one").place, packed.place("b/other").place);
    assert_eq!(packed.place("c/large"), packed.place("d/large"));
    assert_ne!(packed.inode("a/one").nid, packed.inode("b/two").nid, "two inodes all the same");
    assert_eq!(report.duplicate_bytes, 2 * 50_000 + (2 << 20));
    assert_eq!(report.content_bytes, 4 * 50_000 + 2 * (2 << 20));
}

#[test]
fn hardlinks_are_one_inode() {
    let lab = Lab::new();
    let tree = lab.tree("t");
    write(&tree, "a/file", &noise(1, 5000));
    lab.tree("t/b");
    fs::hard_link(tree.join("a/file"), tree.join("b/again")).unwrap();
    fs::hard_link(tree.join("a/file"), tree.join("z")).unwrap();
    std::os::unix::fs::symlink("nowhere", tree.join("s")).unwrap();
    rustix::fs::linkat(CWD, tree.join("s"), CWD, tree.join("b/s"), AtFlags::empty()).unwrap();
    // A hardlink whose other name is outside has one name here.
    fs::write(lab.dir.path().join("outside"), b"x").unwrap();
    fs::hard_link(lab.dir.path().join("outside"), tree.join("inside")).unwrap();
    let store = lab.store("s");
    let report = pack_into(&tree, &threads(2), &store).unwrap();
    let packed = Packed::open(&store, report.cid);
    let nid = packed.inode("a/file").nid;
    assert_eq!((packed.inode("b/again").nid, packed.inode("z").nid), (nid, nid));
    assert_eq!(packed.inode("a/file").nlink, 3);
    assert_eq!(packed.inode("s").nid, packed.inode("b/s").nid);
    assert_eq!(packed.inode("inside").nlink, 1);
    assert_eq!(report.content_bytes, 5001);
    assert_eq!(report.inodes, 6);
}

/// Blocks of the flist of `tree` that `before` does not have.
fn new_blocks(store: &DirStore, before: &Packed<'_>, tree: &Path) -> (Report, usize) {
    let report = pack_into(tree, &threads(2), store).unwrap();
    let known: HashSet<_> = before.blocks.iter().collect();
    let after = Packed::open(store, report.cid);
    let new = after.blocks.iter().filter(|block| !known.contains(block)).count();
    (report, new)
}

#[test]
fn a_changed_file_costs_its_own_blocks() {
    let lab = Lab::new();
    let tree = lab.tree("t");
    for n in 0..400 {
        write(&tree, &format!("d{:02}/f{n}", n % 23), &noise(n, 4_000 + 61 * n as usize));
    }
    write(&tree, "big", &noise(1000, 6 << 20));
    let store = lab.store("s");
    let first = pack_into(&tree, &threads(2), &store).unwrap();
    let before = Packed::open(&store, first.cid);
    assert!(before.blocks.len() > 30, "{} blocks are too few to say much", before.blocks.len());

    // One byte in a bundled file: its bundle, and the next one where the border moved.
    let mut bytes = noise(200, 4_000 + 61 * 200);
    bytes[100] ^= 1;
    write(&tree, "d16/f200", &bytes);
    let (report, new) = new_blocks(&store, &before, &tree);
    assert!((1..=3).contains(&new), "{new} new blocks for one byte of a small file");
    assert!(report.new_bytes < first.new_bytes / 5, "{} of {}", report.new_bytes, first.new_bytes);

    // A byte put in front of a large file moves every byte of it.
    write(&tree, "d16/f200", &noise(200, 4_000 + 61 * 200));
    write(&tree, "big", &[b"!".as_slice(), &noise(1000, 6 << 20)].concat());
    let (_, new) = new_blocks(&store, &before, &tree);
    assert!((1..=3).contains(&new), "{new} new blocks for one byte before a large file");

    // A new directory in front of all others.
    write(&tree, "big", &noise(1000, 6 << 20));
    write(&tree, "a-first/file", &noise(2000, 20_000));
    let (_, new) = new_blocks(&store, &before, &tree);
    assert!((1..=3).contains(&new), "{new} new blocks for one new file");

    // Owners and times are no contents.
    fs::remove_dir_all(tree.join("a-first")).unwrap();
    settle(&tree);
    let (report, new) = new_blocks(&store, &before, &tree);
    assert_eq!(new, 0);
    assert_ne!(report.cid, first.cid);
}

#[test]
fn tiny_files_lie_in_the_tree() {
    let lab = Lab::new();
    let tree = lab.tree("t");
    for size in [1, 127, 128] {
        write(&tree, &size.to_string(), &noise(size as u64, size));
    }
    write(&tree, "empty", b"");
    write(&tree, "zeros", &[0; 100]);
    let store = lab.store("s");
    let report = pack_into(&tree, &threads(2), &store).unwrap();
    assert_eq!((report.blocks, report.stored_bytes), (0, 0), "no content needs a block");
    let packed = Packed::open(&store, report.cid);
    for size in [1, 127, 128] {
        let mapping = packed.place(&size.to_string());
        assert_eq!(mapping.place, erofs::Place::Inline(&noise(size as u64, size)));
    }
    assert_eq!((packed.inode("empty").size, packed.read("zeros")), (0, vec![0; 100]));

    write(&tree, "129", &noise(1, 129));
    let report = pack_into(&tree, &threads(2), &store).unwrap();
    let packed = Packed::open(&store, report.cid);
    assert!(matches!(packed.place("129").place, erofs::Place::Device { .. }));
    assert_eq!((report.blocks, packed.read("129")), (1, noise(1, 129)));
}

#[test]
fn a_tree_without_entries_can_be_packed() {
    let lab = Lab::new();
    let store = lab.store("s");
    let report = pack_into(&lab.tree("t"), &threads(1), &store).unwrap();
    assert_eq!((report.inodes, report.blocks, report.content_bytes), (1, 0, 0));
    assert!(Packed::open(&store, report.cid).blocks.is_empty());
}

/// The frame length is a choice, and part of the address.
#[test]
fn every_frame_length_reads_back() {
    let lab = Lab::new();
    let tree = lab.tree("t");
    mixed(&tree);
    let mut seen = HashSet::new();
    for frame_len in [4096, 65_536, 262_144, 1008 << 10] {
        let store = lab.store(&format!("s{frame_len}"));
        let report = pack_into(&tree, &PackOptions { frame_len, ..threads(2) }, &store).unwrap();
        let packed = Packed::open(&store, report.cid);
        assert_eq!(packed.map.frame_len(), frame_len);
        for path in ["bin/large", "lib/text", "lib/17", "hollow", "etc/conf"] {
            assert!(
                packed.read(path) == fs::read(tree.join(path)).unwrap(),
                "{path} in frames of {frame_len}"
            );
        }
        assert!(seen.insert(report.cid));
    }
}
