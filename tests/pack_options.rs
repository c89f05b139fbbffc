//! What the options of `flist pack` do to the tree.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicBool, Ordering};

use harness::prng::SplitMix64;
use harness::tmpfs::Tmpfs;
use harness::tree::Builder;
use harness::walk::walk;
use harness::{Flist, Place, args, compare, store, synthetic};

#[test]
fn exclude_leaves_out_what_it_names_and_nothing_else() {
    let (flist, place) = (Flist::new(), Place::new());
    let (source, expected) = (place.join("source"), place.join("expected"));
    for (root, all) in [(&source, true), (&expected, false)] {
        let tree = Builder::at(root);
        tree.dir("keep");
        tree.file("keep/a.txt", b"kept");
        if all {
            tree.file("keep/a.log", b"left out by its ending");
            tree.dir("cache/deep");
            tree.file("cache/deep/file", b"left out with its directory");
        }
        tree.finish();
    }
    let cid = flist.pack_with(&source, &["--exclude", "*.log", "--exclude", "cache"]);
    assert_eq!(cid, flist.pack(&expected), "{}", flist.ok(args!["tree", cid]).text());
}

#[test]
fn one_file_system_keeps_a_mountpoint_but_not_what_is_mounted_there() {
    let (flist, place) = (Flist::new(), Place::new());
    let source = place.join("source");
    let tree = Builder::at(&source);
    tree.dir("mnt");
    tree.file("outside", b"x");
    tree.finish();
    let memory = Tmpfs::mount(&source.join("mnt"), 4);
    fs::write(memory.path().join("inside"), b"x").unwrap();
    let with = flist.pack(&source);
    let without = flist.pack_with(&source, &["--one-file-system"]);
    assert_eq!(flist.ok(args!["cat", with, "mnt/inside"]).text(), "x");
    flist.run(args!["cat", without, "mnt/inside"]).exits(1);
    flist.ok(args!["ls", without, "mnt"]);
}

#[test]
fn owner_gives_everything_to_one_user() {
    let (flist, place) = (Flist::new(), Place::new());
    let source = place.join("source");
    let tree = Builder::at(&source);
    tree.dir("dir");
    tree.file("dir/file", b"x");
    tree.symlink("link", "dir");
    tree.owner("dir/file", 1000, 1000);
    tree.owner("", 7, 7);
    tree.finish();
    let cid = flist.pack_with(&source, &["--owner", "100000:200000"]);
    let mounted = flist.mount(&cid);
    walk(mounted.path(), &mut |v| {
        assert_eq!((v.stat.st_uid, v.stat.st_gid), (100_000, 200_000), "{}", v.rel.display());
    })
    .unwrap();
}

#[test]
fn clamp_mtime_lowers_later_times_and_leaves_earlier_ones() {
    let (flist, place) = (Flist::new(), Place::new());
    let source = place.join("source");
    let mut tree = Builder::at(&source);
    for (name, seconds) in [("before", 999), ("at", 1000), ("after", 1001), ("ancient", -5)] {
        tree.file(name, b"");
        tree.time(name, seconds, 500);
    }
    tree.finish();
    let cid = flist.pack_with(&source, &["--clamp-mtime", "1000"]);
    let mounted = flist.mount(&cid);
    let time = |name: &str| fs::metadata(mounted.join(name)).map(|m| (m.mtime(), m.mtime_nsec())).unwrap();
    assert_eq!(time("before"), (999, 500));
    assert_eq!(time("ancient"), (-5, 500));
    assert_eq!(time("after").0, 1000);
    assert_eq!(time("at").0, 1000);
    assert_eq!(time("").0, 1000, "the root too");
}

/// Level and frame decide how bytes are stored, never which bytes are read.
#[test]
fn every_level_and_frame_size_reads_back_the_same() {
    let (flist, place) = (Flist::new(), Place::new());
    let source = place.join("source");
    synthetic::seven_megabytes(&source);
    for options in [["--level", "1"], ["--level", "19"], ["--frame", "64K"], ["--frame", "1008K"]] {
        let cid = flist.pack_with(&source, &options);
        let mounted = flist.mount(&cid);
        compare::assert_same(&source, mounted.path());
    }
    flist.run(args!["pack", source, "--level", "99"]).exits(2);
    flist.run(args!["pack", source, "--frame", "3"]).exits(2);
}

#[test]
fn a_file_that_changes_while_it_is_read_is_named_and_not_packed() {
    let (flist, place) = (Flist::new(), Place::new());
    let source = place.join("source");
    let tree = Builder::at(&source);
    tree.file("steady", b"does not change");
    tree.file("restless", &SplitMix64::new(8).bytes(64 << 20));
    tree.finish();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let file = fs::OpenOptions::new().append(true).open(source.join("restless")).unwrap();
            while !stop.load(Ordering::Relaxed) {
                std::io::Write::write_all(&mut &file, b"more").unwrap();
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
        });
        let strict = flist.run(args!["pack", source]);
        let lenient = flist.run(args!["pack", source, "--skip-changed"]);
        stop.store(true, Ordering::Relaxed);
        let strict = strict.exits(1);
        assert!(strict.stderr.contains("restless"), "names the file: {}", strict.stderr);
        let lenient = lenient.ok();
        assert!(lenient.stderr.contains("restless"), "reports the file: {}", lenient.stderr);
        let cid = lenient.text();
        flist.run(args!["cat", cid, "restless"]).exits(1);
        assert_eq!(flist.ok(args!["cat", cid, "steady"]).text(), "does not change");
    });
    store::assert_whole(flist.store());
}

#[test]
fn an_interrupted_pack_leaves_only_whole_blocks_and_can_be_repeated() {
    use rustix::process::{Pid, Signal, kill_process};
    let (flist, place) = (Flist::new(), Place::new());
    let source = place.join("source");
    // Noise is stored at once, while text at a high level takes seconds: every signal comes in the middle.
    let tree = Builder::at(&source);
    let mut rng = SplitMix64::new(9);
    tree.file("a-noise", &rng.bytes(8 << 20));
    for i in 0..8 {
        tree.file(format!("text-{i}"), &rng.text(4 << 20));
    }
    tree.finish();
    for signal in [Signal::INT, Signal::TERM, Signal::KILL] {
        let _ = fs::remove_dir_all(flist.store());
        let mut child =
            flist.command(args!["pack", source, "--level", "15"]).output_to_nowhere().spawn().unwrap();
        // Blocks get their names in batches; until then they lie in files that begin with a dot.
        let begun = || store::objects(flist.store()).len() + store::unfinished(flist.store()).len();
        harness::wait::until("pack stores some blocks", std::time::Duration::from_secs(60), || {
            begun() >= 5 || child.try_wait().unwrap().is_some()
        });
        let _ = kill_process(Pid::from_child(&child), signal);
        let status = child.wait().unwrap();
        assert!(!status.success(), "{signal:?} came after the end: the test needs a larger tree");
        store::assert_whole(flist.store());
    }
    let cid = flist.pack_with(&source, &["--level", "15"]);
    flist.ok(args!["check", cid]);
    let left = store::unfinished(flist.store());
    assert!(left.is_empty(), "what a killed run left is swept up by the next: {left:?}");
}

trait Quiet {
    fn output_to_nowhere(&mut self) -> &mut Self;
}

impl Quiet for std::process::Command {
    fn output_to_nowhere(&mut self) -> &mut Self {
        self.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null())
    }
}
