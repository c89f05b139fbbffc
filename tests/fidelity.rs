//! What goes in comes out: every attribute of every oddity, through the mount, through unpack, and through the kernel's
//! own EROFS driver.

use std::fs;

use harness::kernel_mount::judge;
use harness::oddities::{self, Scale};
use harness::tree::Builder;
use harness::{Flist, Place, args, compare};

#[test]
fn every_oddity_compares_equal_through_the_mount() {
    let (flist, place) = (Flist::new(), Place::new());
    let source = place.join("source");
    oddities::build(&source, Scale::FULL);
    let cid = flist.pack(&source);
    let mounted = flist.mount(&cid);
    compare::assert_same(&source, mounted.path());
    mounted.umount();
}

#[test]
fn every_oddity_survives_unpacking() {
    let (flist, place) = (Flist::new(), Place::new());
    let (source, copy) = (place.join("source"), place.join("copy"));
    oddities::build(&source, Scale { levels: Scale::FULL.levels, ..Scale::FAST });
    let cid = flist.pack(&source);
    flist.ok(args!["unpack", cid, copy]);
    compare::assert_same(&source, &copy);
}

#[test]
fn fsck_and_the_kernel_accept_the_tree_and_agree_on_every_byte() {
    let (flist, place) = (Flist::new(), Place::new());
    let source = place.join("source");
    oddities::build(&source, Scale::FULL);
    let cid = flist.pack(&source);
    let kernel = judge(&flist, &cid, &place);
    compare::assert_same(&source, kernel.path());
}

type Plant = fn(&Builder);

#[test]
fn the_smallest_trees_are_images_too() {
    let (flist, place) = (Flist::new(), Place::new());
    let trees: [(&str, Plant); 5] = [
        ("nothing", |_| {}),
        ("one_empty_file", |t| t.file("empty", b"")),
        ("one_byte", |t| t.file("byte", b"x")),
        ("one_symlink", |t| t.symlink("link", "/")),
        ("only_a_hole", |t| t.sparse("hole", 1 << 40, &[])),
    ];
    for (name, plant) in trees {
        let source = place.join(name);
        let tree = Builder::at(&source);
        plant(&tree);
        tree.finish();
        let cid = flist.pack(&source);
        let mounted = flist.mount(&cid);
        compare::assert_same(&source, mounted.path());
        mounted.umount();
        let inner = Place::new();
        compare::assert_same(&source, judge(&flist, &cid, &inner).path());
    }
}

#[test]
fn directories_of_every_size_around_a_block_keep_all_their_names() {
    let (flist, place) = (Flist::new(), Place::new());
    let source = place.join("source");
    let tree = Builder::at(&source);
    // With names of 12 bytes 24 are taken by an entry, and 27 by `.` and `..`: a block ends at the 169th.
    for entries in (160..180).chain(335..345) {
        tree.dir(format!("{entries}"));
        for i in 0..entries {
            tree.file(format!("{entries}/{i:012}"), b"");
        }
    }
    tree.finish();
    let cid = flist.pack(&source);
    let mounted = flist.mount(&cid);
    compare::assert_same(&source, mounted.path());
    compare::assert_same(&source, judge(&flist, &cid, &place).path());
}

#[test]
fn pack_refuses_by_name_what_an_flist_cannot_hold() {
    let (flist, place) = (Flist::new(), Place::new());
    // Only a filesystem in memory holds a value of 65,536 bytes; an EROFS entry counts to 65,535.
    let memory = harness::tmpfs::Tmpfs::mount(&place.dir("memory"), 64);
    let source = memory.path().join("source");
    let tree = Builder::at(&source);
    tree.dir("dir");
    tree.file("dir/heavy", b"");
    tree.xattr("dir/heavy", "trusted.heavy", &[1; 65_536]);
    tree.finish();
    let outcome = flist.run(args!["pack", source]).exits(1);
    assert!(outcome.stdout.is_empty(), "no CID: {}", outcome.text());
    assert!(outcome.stderr.contains("dir/heavy"), "names the path: {}", outcome.stderr);
    assert!(outcome.stderr.contains("trusted.heavy"), "names the reason: {}", outcome.stderr);
    fs::remove_file(source.join("dir/heavy")).unwrap();
    flist.pack(&source);
}
