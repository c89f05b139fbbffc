//! A full disk loses nothing: not while packing, and not under the cache.

use std::fs;
use std::time::Duration;

use harness::tmpfs::Tmpfs;
use harness::{Flist, Place, args, compare, store, synthetic, wait};

#[test]
fn packing_to_a_full_disk_says_so_and_leaves_only_whole_blocks() {
    let (flist, place) = (Flist::new(), Place::new());
    let source = place.join("source");
    synthetic::seven_megabytes(&source);
    let disk = Tmpfs::mount(&place.dir("disk"), 3);
    let to = format!("dir:{}", disk.path().join("store").display());
    let outcome = flist.run(args!["pack", source, "--to", to]).exits(1);
    assert!(outcome.stdout.is_empty(), "no CID: {}", outcome.text());
    assert!(outcome.stderr.to_lowercase().contains("no space"), "{}", outcome.stderr);
    assert!(
        outcome.stderr.contains(&disk.path().display().to_string()),
        "names the disk: {}",
        outcome.stderr
    );
    store::assert_whole(disk.path());

    let stored = store::objects(disk.path()).len();
    disk.resize(64);
    let cid = flist.ok(args!["pack", source, "--to", to]).text();
    assert!(store::objects(disk.path()).len() > stored);
    flist.ok(args!["check", cid, "--from", to]);
    assert_eq!(cid, flist.pack(&source), "the same image as on a disk with room");
}

/// The cache is a convenience: without room for it everything is merely uncached.
#[test]
fn a_full_disk_under_the_cache_means_uncached_and_not_broken() {
    let (flist, place) = (Flist::new(), Place::new());
    let source = place.join("source");
    synthetic::sixty_megabytes(&source);
    let cid = flist.pack(&source);
    let disk = Tmpfs::mount(&place.dir("disk"), 24);
    let cache = disk.path().join("cache");
    let options = ["--cache-local", "--cache-size", "1GiB", "--cache", cache.to_str().unwrap()];
    for _ in 0..2 {
        let mounted = flist.mount_with(&cid, &options);
        compare::assert_same(&source, mounted.path());
        let pid = mounted.pid();
        mounted.umount();
        wait::for_the_end_of(pid, Duration::from_secs(20));
    }
}

#[test]
fn unpacking_to_a_full_disk_says_so() {
    let (flist, place) = (Flist::new(), Place::new());
    let source = place.join("source");
    synthetic::seven_megabytes(&source);
    let cid = flist.pack(&source);
    let disk = Tmpfs::mount(&place.dir("disk"), 3);
    let outcome = flist.run(args!["unpack", cid, disk.path().join("root")]).exits(1);
    assert!(outcome.stderr.to_lowercase().contains("no space"), "{}", outcome.stderr);
    disk.resize(64);
    if disk.path().join("root").exists() {
        fs::remove_dir_all(disk.path().join("root")).unwrap();
    }
    flist.ok(args!["unpack", cid, disk.path().join("root")]);
    compare::assert_same(&source, &disk.path().join("root"));
}
