//! What the options do, and what is refused.

use std::os::unix::fs::MetadataExt;

use super::*;

#[test]
fn excluded_paths_are_not_in_the_flist() {
    let lab = Lab::new();
    let tree = lab.tree("t");
    for path in ["keep", "a.o", "src/b.o", "tmp/x/y", "src/tmp/z", "var/log/l"] {
        write(&tree, path, b"content");
    }
    let filter = Filter::new(&["*.o", "/tmp", "var/log"]).unwrap();
    let store = lab.store("s");
    let report = pack_into(&tree, &PackOptions { filter, ..threads(2) }, &store).unwrap();
    let packed = Packed::open(&store, report.cid);
    for kept in ["keep", "src/tmp/z", "var"] {
        assert!(packed.find(kept).is_some(), "{kept}");
    }
    for gone in ["a.o", "src/b.o", "tmp", "var/log"] {
        assert!(packed.find(gone).is_none(), "{gone}");
    }
    assert_eq!(report.content_bytes, 14);

    // What is left out leaves no trace, so the address is that of a tree without it.
    for path in ["a.o", "src/b.o"] {
        fs::remove_file(tree.join(path)).unwrap();
    }
    fs::remove_dir_all(tree.join("tmp")).unwrap();
    fs::remove_dir_all(tree.join("var/log")).unwrap();
    settle(&tree);
    let bare = lab.cid(&tree, &threads(2));
    for path in ["a.o", "src/b.o", "tmp/x/y", "var/log/l"] {
        write(&tree, path, b"content");
    }
    settle(&tree);
    let filter = Filter::new(&["*.o", "/tmp", "var/log"]).unwrap();
    assert_eq!(lab.cid(&tree, &PackOptions { filter, ..threads(2) }), bare);
}

/// Unmounts when the test is over, however it ends.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH).unwrap();
    }
}

#[test]
fn another_file_system_below_is_left_out_on_request() {
    let lab = Lab::new();
    let tree = lab.tree("t");
    write(&tree, "file", b"here");
    let below = lab.tree("t/mnt/deep");
    let mounting = rustix::mount::mount("tmpfs", &below, "tmpfs", rustix::mount::MountFlags::empty(), None);
    mounting.expect("this test mounts a tmpfs: run it as root");
    let mounted = Mounted(below.clone());
    write(&below, "secret/file", b"there");
    let store = lab.store("s");
    let all = pack_into(&tree, &threads(2), &store).unwrap();
    assert_eq!(Packed::open(&store, all.cid).read("mnt/deep/secret/file"), b"there");
    let options = PackOptions { one_file_system: true, ..threads(2) };
    let some = pack_into(&tree, &options, &store).unwrap();
    let packed = Packed::open(&store, some.cid);
    assert!(packed.inode("mnt/deep").is_dir(), "the mountpoint itself stays");
    assert!(packed.find("mnt/deep/secret").is_none());
    assert_eq!(packed.read("file"), b"here");
    drop(mounted);
}

#[test]
fn times_are_clamped_and_not_raised() {
    let lab = Lab::new();
    let tree = lab.tree("t");
    for (name, secs, nanos) in [("old", 500, 7), ("edge", 1000, 9), ("new", 2000, 1), ("ancient", -5, 3)] {
        write(&tree, name, b"x");
        set_mtime(&tree.join(name), secs, nanos);
    }
    let store = lab.store("s");
    let options = PackOptions { clamp_mtime: Some(1000), ..threads(1) };
    let report = pack_into(&tree, &options, &store).unwrap();
    let packed = Packed::open(&store, report.cid);
    let mtime = |path: &str| (packed.inode(path).mtime.secs, packed.inode(path).mtime.nanos);
    assert_eq!((mtime("old"), mtime("ancient")), ((500, 7), (-5, 3)));
    assert_eq!((mtime("edge"), mtime("new"), mtime("")), ((1000, 0), (1000, 0), (1000, 0)));
}

#[test]
fn one_owner_for_all_replaces_those_on_disk() {
    let lab = Lab::new();
    let tree = lab.tree("t");
    write(&tree, "d/f", b"x");
    let store = lab.store("s");
    let kept = pack_into(&tree, &threads(1), &store).unwrap();
    let on_disk = fs::metadata(tree.join("d/f")).unwrap();
    let inode = Packed::open(&store, kept.cid).inode("d/f");
    assert_eq!((inode.uid, inode.gid), (on_disk.uid(), on_disk.gid()));
    let owner = Some(OwnerMap { uid: 4_000_000_000, gid: 70_000 });
    let report = pack_into(&tree, &PackOptions { owner, ..threads(1) }, &store).unwrap();
    let packed = Packed::open(&store, report.cid);
    for path in ["", "d", "d/f"] {
        let inode = packed.inode(path);
        assert_eq!((inode.uid, inode.gid), (4_000_000_000, 70_000), "{path:?}");
    }
}

#[test]
fn an_xattr_that_an_flist_cannot_hold_is_refused_by_path() {
    let lab = Lab::new();
    let tree = lab.tree("t");
    write(&tree, "d/f", b"x");
    // The kernel takes 65,536 bytes, an flist one less.
    let path = tree.join("d/f");
    let flags = rustix::fs::XattrFlags::empty();
    let set = rustix::fs::setxattr(&path, "user.large", &[7; 65_536], flags);
    set.expect("this test needs a file system that takes an xattr of 64 KiB");
    match pack_into(&tree, &threads(2), &lab.store("s")) {
        Err(PackError::Unrepresentable { path: named, reason }) => {
            assert_eq!(named, path);
            assert!(reason.contains("user.large"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_store_inside_the_tree_is_refused_unless_it_is_excluded() {
    let lab = Lab::new();
    let tree = lab.tree("t");
    write(&tree, "file", &noise(1, 1000));
    let store = lab.store("t/var/store");
    let refused = pack_into(&tree, &threads(1), &store).unwrap_err();
    assert!(matches!(refused, PackError::StoreInside { .. }), "{refused}");
    let through_a_link = lab.dir.path().join("link");
    std::os::unix::fs::symlink(&tree, &through_a_link).unwrap();
    let refused = pack_into(&through_a_link, &threads(1), &store).unwrap_err();
    assert!(matches!(refused, PackError::StoreInside { .. }), "{refused}");
    assert!(files_of(store.root()).is_empty(), "refused before anything is written");
    for pattern in ["/var", "var/store", "store"] {
        let filter = Filter::new(&[pattern]).unwrap();
        let report = pack_into(&tree, &PackOptions { filter, ..threads(1) }, &store).unwrap();
        let packed = Packed::open(&store, report.cid);
        assert!(packed.find("file").is_some() && packed.find("var/store").is_none(), "{pattern}");
    }
    // The store's own folder as the tree.
    let refused = pack_into(store.root(), &threads(1), &store).unwrap_err();
    assert!(matches!(refused, PackError::StoreInside { .. }), "{refused}");
    // A neighbour whose name merely begins the same is outside.
    fs::remove_dir_all(tree.join("var")).unwrap();
    pack_into(&tree, &threads(1), &lab.store("t-store")).unwrap();
}

#[test]
fn a_tree_that_is_not_there_or_no_directory_is_named() {
    let lab = Lab::new();
    let store = lab.store("s");
    let tree = lab.tree("t");
    write(&tree, "file", b"");
    for bad in [tree.join("missing"), tree.join("file")] {
        match pack_into(&bad, &threads(1), &store) {
            Err(PackError::Io { path, .. }) => assert_eq!(path, bad),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_store_that_vanishes_ends_the_run_with_its_error() {
    let lab = Lab::new();
    let tree = lab.tree("t");
    mixed(&tree);
    let store = lab.store("s");
    fs::remove_dir_all(store.root()).unwrap();
    let error = pack_into(&tree, &threads(2), &store).unwrap_err();
    assert!(matches!(error, PackError::Store(_)), "{error}");
}

/// Zero threads read nothing, and the run succeeded: every file was empty.
#[test]
fn no_threads_are_one_thread() {
    let lab = Lab::new();
    let tree = lab.tree("t");
    write(&tree, "f", &noise(1, 5000));
    settle(&tree);
    assert_eq!(lab.cid(&tree, &threads(0)), lab.cid(&tree, &threads(1)));
}

#[test]
fn a_level_that_zstd_does_not_have_ends_the_run() {
    let lab = Lab::new();
    let tree = lab.tree("t");
    mixed(&tree);
    let error = pack_into(&tree, &PackOptions { level: 99, ..threads(2) }, &lab.store("s")).unwrap_err();
    assert!(matches!(error, PackError::Encode(_)), "{error}");
}

#[test]
fn a_wrong_object_under_a_right_name_is_replaced() {
    let lab = Lab::new();
    let tree = lab.tree("t");
    mixed(&tree);
    let store = lab.store("s");
    let report = pack_into(&tree, &threads(2), &store).unwrap();
    let packed = Packed::open(&store, report.cid);
    let (cut, bent) = (store.path(&packed.blocks[0]), store.path(&packed.blocks[1]));
    let good = fs::read(&bent).unwrap();
    fs::write(&cut, b"").unwrap();
    fs::write(&bent, vec![0; good.len()]).unwrap();
    let again = pack_into(&tree, &threads(2), &store).unwrap();
    assert_eq!(again.cid, report.cid);
    assert!(again.new_bytes > good.len() as u64);
    assert_eq!(fs::read(&bent).unwrap(), good);
    assert!(packed.read("bin/large") == noise(3, 3 << 20));
}
