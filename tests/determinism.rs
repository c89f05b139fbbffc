//! Same tree in, same CID out; and images that differ little share what they have in common.

use std::collections::BTreeSet;
use std::fs;

use harness::oddities::{self, Scale};
use harness::prng::SplitMix64;
use harness::tmpfs::Tmpfs;
use harness::{Flist, Place, args, compare, process, store, synthetic};

/// What a change of one file may add: its block, the pieces of tree and map around it, a shard, the root.
const HANDFUL: usize = 8;

#[test]
fn the_cid_depends_on_the_tree_alone_and_not_on_threads_disk_or_time() {
    let (flist, place) = (Flist::new(), Place::new());
    let (source, copy) = (place.join("source"), place.join("copy"));
    oddities::build(&source, Scale::FAST);
    let cid = flist.pack_with(&source, &["--threads", "1"]);
    assert_eq!(cid, flist.pack_with(&source, &["--threads", "2"]), "two threads");
    assert_eq!(cid, flist.pack_with(&source, &["--threads", "7"]), "more threads than cores");
    assert_eq!(cid, Flist::new().pack(&source), "an empty store");

    process::tool("cp", args!["-a", source, copy]);
    assert_eq!(cid, flist.pack(&copy), "a copy by cp -a");

    let memory = Tmpfs::mount(&place.dir("memory"), 1024);
    let copy = memory.path().join("copy");
    process::tool("cp", args!["-a", source, copy]);
    compare::assert_same(&source, &copy);
    assert_eq!(cid, flist.pack(&copy), "a copy on tmpfs");
}

/// A hole is decided by content: what a copy writes out as zeros is still the same tree.
#[test]
fn holes_that_a_copy_filled_with_zeros_do_not_change_the_cid() {
    let (flist, place) = (Flist::new(), Place::new());
    let (source, full) = (place.join("source"), place.join("full"));
    let tree = harness::tree::Builder::at(&source);
    tree.sparse("sparse", 3 << 20, &[(1 << 20, b"island")]);
    tree.sparse("hole", 5000, &[]);
    tree.file("zeros", &[0; 10_000]);
    tree.finish();
    process::tool("cp", args!["-a", "--sparse=never", source, full]);
    assert_eq!(flist.pack(&source), flist.pack(&full));
    process::tool("cp", args!["-a", "--sparse=always", source, place.join("holes")]);
    assert_eq!(flist.pack(&source), flist.pack(&place.join("holes")));
}

#[test]
fn an_unpacked_image_packs_to_its_own_cid() {
    let (flist, place) = (Flist::new(), Place::new());
    let (source, copy) = (place.join("source"), place.join("copy"));
    oddities::build(&source, Scale::FAST);
    let cid = flist.pack(&source);
    flist.ok(args!["unpack", cid, copy]);
    assert_eq!(cid, flist.pack(&copy), "an unpacked tree");
    let mounted = flist.mount(&cid);
    assert_eq!(cid, flist.pack(mounted.path()), "the mounted tree itself");
}

#[test]
fn packing_again_stores_nothing_new() {
    let (flist, place) = (Flist::new(), Place::new());
    let source = place.join("source");
    synthetic::seven_megabytes(&source);
    let cid = flist.pack(&source);
    let before = store::objects(flist.store());
    assert_eq!(cid, flist.pack(&source));
    assert_eq!(before, store::objects(flist.store()));
    store::assert_whole(flist.store());
}

#[test]
fn one_changed_file_shares_all_but_a_handful_of_blocks() {
    let (flist, place) = (Flist::new(), Place::new());
    let source = place.join("source");
    synthetic::sixty_megabytes(&source);
    flist.pack(&source);
    let mut rng = SplitMix64::new(99);
    let changes: [(&str, &str, Vec<u8>); 5] = [
        (
            "same size",
            "dir-20/file-25",
            rng.bytes(fs::metadata(source.join("dir-20/file-25")).unwrap().len() as usize),
        ),
        ("grown", "dir-10/file-10", rng.bytes(50_000)),
        ("a new file in the middle", "dir-15/a-new-file", rng.bytes(10_000)),
        ("from small to big", "dir-05/file-05", rng.bytes(1 << 20)),
        ("emptied", "dir-30/file-30", Vec::new()),
    ];
    for (what, rel, bytes) in changes {
        let before = names(&flist);
        fs::write(source.join(rel), &bytes).unwrap();
        flist.pack(&source);
        let new = names(&flist).difference(&before).count();
        // A file of 1 MiB has its own chunks, 256 KiB on average.
        let allowed = HANDFUL + bytes.len() / (128 << 10);
        assert!(new <= allowed, "{what}: {new} new objects of {}, at most {allowed} expected", before.len());
    }
}

#[test]
fn options_that_change_the_image_change_the_cid() {
    let (flist, place) = (Flist::new(), Place::new());
    let source = place.join("source");
    synthetic::tiny(&source);
    let mut seen = BTreeSet::from([flist.pack(&source)]);
    let variants: [&[&str]; 10] = [
        &["--level", "19"],
        &["--frame", "256K"],
        &["--owner", "5:6"],
        &["--clamp-mtime", "1"],
        &["--exclude", "hello"],
        &["--entrypoint", "/bin/sh"],
        &["--env", "A=1"],
        &["--workdir", "/tmp"],
        &["--user", "1234"],
        &["--label", "a=b"],
    ];
    for options in variants {
        let cid = flist.pack_with(&source, options);
        assert_eq!(cid, flist.pack_with(&source, options), "{options:?} twice");
        assert!(seen.insert(cid), "{options:?} changed nothing");
    }
}

fn names(flist: &Flist) -> BTreeSet<String> {
    store::objects(flist.store()).into_iter().map(|(cid, _)| cid).collect()
}
