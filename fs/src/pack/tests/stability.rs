//! One tree has one address: whatever the threads, the order in which it was made, or how the disk keeps its holes.

use std::os::unix::fs::PermissionsExt;

use super::*;

#[test]
fn threads_do_not_reach_the_address() {
    let lab = Lab::new();
    let tree = lab.tree("t");
    mixed(&tree);
    settle(&tree);
    let one = lab.cid(&tree, &threads(1));
    for n in [2, 4, 7] {
        assert_eq!(lab.cid(&tree, &threads(n)), one, "{n} threads");
    }
}

#[test]
fn the_order_of_making_does_not_reach_the_address() {
    let lab = Lab::new();
    let names: Vec<String> = (0..60).map(|n| format!("d{}/f{n}", n % 7)).collect();
    let make = |name: &str, order: &mut dyn Iterator<Item = &String>| {
        let tree = lab.tree(name);
        for path in order {
            write(&tree, path, &noise(path.len() as u64 + u64::from(path.as_bytes()[1]), 5000));
        }
        settle(&tree);
        lab.cid(&tree, &threads(2))
    };
    let forwards = make("forwards", &mut names.iter());
    let backwards = make("backwards", &mut names.iter().rev());
    assert_eq!(forwards, backwards);
}

#[test]
fn a_sparse_file_and_its_dense_copy_are_the_same() {
    let lab = Lab::new();
    let (len, data) = (5u64 << 20, noise(1, 100_000));
    // Data that begins and ends off the block borders, a hole shorter than any that is kept, and a hole at the end.
    let places: [(u64, &[u8]); 3] = [(4097, &data), (150_000, &data[..10]), (2 << 20, &data[..5000])];
    let (sparse, dense) = (lab.tree("sparse"), lab.tree("dense"));
    write_sparse(&sparse, "f", len, &places);
    let mut bytes = vec![0; len as usize];
    for (at, part) in places {
        bytes[at as usize..][..part.len()].copy_from_slice(part);
    }
    write(&dense, "f", &bytes);
    settle(&sparse);
    settle(&dense);
    let allocated =
        |tree: &Path| std::os::unix::fs::MetadataExt::blocks(&fs::metadata(tree.join("f")).unwrap());
    assert!(
        allocated(&sparse) < allocated(&dense),
        "the file system keeps no holes, so this test says nothing"
    );
    assert_eq!(lab.cid(&sparse, &threads(1)), lab.cid(&dense, &threads(4)));
    let store = lab.store("s");
    let report = pack_into(&sparse, &threads(2), &store).unwrap();
    assert!(Packed::open(&store, report.cid).read("f") == bytes);
}

#[test]
fn every_size_around_a_border_reads_back() {
    let lab = Lab::new();
    let tree = lab.tree("t");
    let borders = [1, 128, 2048, 4096, 65_536, 262_144, 1 << 20, g8_cache::MAX_STORED];
    let sizes: Vec<usize> = borders.iter().flat_map(|b| [b - 1, *b, b + 1]).collect();
    for size in &sizes {
        write(&tree, &format!("noise/{size}"), &noise(*size as u64, *size));
        write(&tree, &format!("zeros/{size}"), &vec![0; *size]);
    }
    let store = lab.store("s");
    let report = pack_into(&tree, &threads(2), &store).unwrap();
    let packed = Packed::open(&store, report.cid);
    for size in &sizes {
        assert!(packed.read(&format!("noise/{size}")) == noise(*size as u64, *size), "{size} bytes");
        assert!(packed.read(&format!("zeros/{size}")) == vec![0; *size], "{size} zeros");
    }
}

/// Freezes the format. Another CID here means that every tree packed so far gets another address: nothing is shared
/// with what is stored already, and caches start empty. Change the expectation only together with an entry in
/// CHANGELOG.md, and with `format::root::VERSION` when older readers cannot read the result.
#[test]
fn the_address_of_a_small_tree_is_pinned() {
    let lab = Lab::new();
    let tree = lab.tree("t");
    mixed(&tree);
    let mut pending = vec![tree.clone()];
    while let Some(path) = pending.pop() {
        let meta = fs::symlink_metadata(&path).unwrap();
        if !meta.is_symlink() {
            let mode = if meta.is_dir() { 0o755 } else { 0o644 };
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        }
        if meta.is_dir() {
            pending.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    fs::set_permissions(tree.join("bin/medium"), fs::Permissions::from_mode(0o4755)).unwrap();
    settle(&tree);
    set_mtime(&tree.join("tiny"), -1, 999_999_999);
    let options = PackOptions {
        owner: Some(OwnerMap { uid: 1000, gid: 70_000 }),
        arch: Some("amd64".into()),
        config: format::RunConfig { entrypoint: vec!["/bin/large".into()], ..Default::default() },
        level: 3,
        frame_len: 256 * 1024,
        ..threads(2)
    };
    let store = lab.store("s");
    let report = pack_into(&tree, &options, &store).unwrap();
    assert_eq!(
        (report.cid.to_string().as_str(), report.blocks, report.inodes),
        ("bafyreigsddwbmluycqhlkz37fihhkqomsv2kkaahjw47octlxi5cx2hlcm", 18, 56)
    );
}
