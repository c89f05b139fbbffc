//! `car:FILE`: an archive as a source, whole and in every way that one can be broken.

use std::fs;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use harness::car::{self, Car};
use harness::{Flist, Outcome, args, compare, mount_table, synthetic, tree, wait};

/// What cannot work says so within this time.
const SOON: Duration = Duration::from_secs(20);

/// A store with a tree in it, and its CID.
fn packed() -> (Flist, String) {
    let flist = Flist::new();
    let source = flist.home().join("source");
    synthetic::seven_megabytes(&source);
    let cid = flist.pack(&source);
    (flist, cid)
}

#[test]
fn a_tree_mounted_from_an_archive_equals_its_source() {
    let (flist, cid) = packed();
    let from = Car::of(flist.store(), &cid, |_| true).write(&flist.home().join("a.car"));
    for mode in ["auto", "fuse"] {
        let reader = Flist::new();
        let mounted = reader.mount_with(&cid, &["--from", &from, "--mode", mode]);
        compare::assert_same(&flist.home().join("source"), mounted.path());
        assert_eq!(mounted.status().wrong, 0);
        // Read in place: the cache has no copy.
        let stats = reader.ok(args!["cache", "stats", "--json"]).json();
        assert_eq!(stats["disk"]["entries"].as_u64(), Some(0), "{stats:#}");
    }
    flist.ok(args!["check", cid, "--from", from]);
    let listed = flist.ok(args!["ls", cid, "--from", from]).text();
    assert_eq!(listed, flist.ok(args!["ls", cid]).text());
}

#[test]
fn with_cache_local_the_cache_has_the_blocks_and_the_archive_may_go() {
    let (flist, cid) = packed();
    let path = flist.home().join("a.car");
    let from = Car::of(flist.store(), &cid, |_| true).write(&path);
    let reader = Flist::new();
    let options = ["--from", &from, "--cache-local", "--mode", "fuse"];
    let mounted = reader.mount_with(&cid, &options);
    compare::assert_same(&flist.home().join("source"), mounted.path());
    let pid = mounted.pid();
    mounted.umount();
    wait::for_the_end_of(pid, SOON);
    let empty = Flist::new();
    let mounted = reader.mount_with(&cid, &["--from", &empty_store(&empty), "--mode", "fuse"]);
    fs::remove_file(&path).unwrap();
    compare::assert_same(&flist.home().join("source"), mounted.path());
}

fn empty_store(flist: &Flist) -> String {
    format!("dir:{}", flist.home().dir("empty").display())
}

#[track_caller]
fn explains(outcome: &Outcome, all: &[&str]) {
    assert_eq!(outcome.code, 1, "{}: {}", outcome.command, outcome.stderr);
    for words in all {
        assert!(outcome.stderr.contains(words), "{}: no {words:?}: {}", outcome.command, outcome.stderr);
    }
}

#[test]
fn a_broken_archive_is_an_error_that_says_what_is_wrong_with_it() {
    let (flist, cid) = packed();
    let good = Car::of(flist.store(), &cid, |_| true);
    let (_, last, data) = good.sections.last().expect("there are some").clone();
    let path = flist.home().join("bad.car");
    let from = format!("car:{}", path.display());
    let cases: [(&str, Vec<u8>, &[&str]); 8] = [
        ("empty", Vec::new(), &["it is empty"]),
        (
            "a script",
            b"#!/bin/sh\necho this is no archive, and long enough to be read as one".into(),
            &["header"],
        ),
        (
            "cut in a block",
            good.bytes[..data + 10].into(),
            &["it is cut off", &good.sections.last().unwrap().0],
        ),
        ("cut in a length", good.bytes[..=last].into(), &["it is cut off"]),
        ("a length without end", [&good.bytes[..last], &[0xff; 12]].concat(), &["is not a varint"]),
        (
            "a section longer than the file",
            [&good.bytes[..last], &[0x80, 0x80, 0x3f], &good.bytes[data - 36..]].concat(),
            &["it is cut off"],
        ),
        (
            "a huge section",
            [&good.bytes[..last], &[0xff, 0xff, 0xff, 0x7f]].concat(),
            &["more than any block"],
        ),
        ("no blocks", car::header(&cid), &["has no block", &cid, "its root is"]),
    ];
    for (what, bytes, words) in cases {
        fs::write(&path, bytes).unwrap();
        for command in
            [args!["mount", cid, flist.mountpoint(), "--from", from], args!["info", cid, "--from", from]]
        {
            let outcome = flist.run_within(SOON, command);
            explains(&outcome, words);
            assert!(outcome.stderr.contains("bad.car"), "{what}: the file is not named: {}", outcome.stderr);
        }
    }
    mount_table::assert_none_under(flist.home().path());
}

#[test]
fn an_archive_of_another_flist_names_its_roots() {
    let (flist, cid) = packed();
    let other = Flist::with_image();
    let from = Car::of(other.0.store(), &other.1, |_| true).write(&flist.home().join("other.car"));
    let outcome = flist.run_within(SOON, args!["mount", cid, flist.mountpoint(), "--from", from]);
    explains(&outcome, &["has no block", &cid, &format!("its root is {}", other.1)]);
    // Another source may have what it lacks.
    let both = format!("{from},{}", flist.spec());
    let mounted = flist.mount_with(&cid, &["--from", &both]);
    compare::assert_same(&flist.home().join("source"), mounted.path());
}

#[test]
fn what_is_no_file_is_refused_at_once() {
    let (flist, cid) = Flist::with_image();
    let (folder, fifo) = (flist.home().dir("folder"), flist.home().join("fifo"));
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    for (path, words) in [
        (&folder, "is not a file"),
        (&fifo, "is not a file"),
        (&flist.home().join("none"), "there is no file"),
    ] {
        let from = format!("car:{}", path.display());
        let outcome = flist.run_within(SOON, args!["mount", cid, flist.mountpoint(), "--from", from]);
        explains(&outcome, &[words, path.to_str().unwrap()]);
    }
    let outcome = flist.run_within(SOON, args!["mount", cid, flist.mountpoint(), "--from", "car:"]);
    assert_eq!(outcome.code, 2, "{}", outcome.stderr);
    assert!(outcome.stderr.contains("car:FILE"), "{}", outcome.stderr);
}

/// A block that is damaged on the disk: its offset is told, its files are errors, all others are right.
#[test]
fn a_block_with_wrong_bytes_is_told_with_its_place_and_never_read() {
    let flist = Flist::new();
    let source = tree::Builder::at(&flist.home().join("source"));
    let mut random = harness::SplitMix64::new(7);
    for n in 0..6 {
        source.file(format!("file-{n}"), &random.bytes(600_000));
    }
    source.finish();
    let cid = flist.pack(&flist.home().join("source"));
    let mut car = Car::of(flist.store(), &cid, |_| true);
    // The largest are blocks of contents.
    let ends = car.sections.iter().skip(1).map(|(_, start, _)| *start).chain([car.bytes.len()]);
    let (name, data) = (car.sections.iter().zip(ends))
        .max_by_key(|((_, start, _), end)| end - start)
        .map(|((name, _, data), _)| (name.clone(), *data))
        .unwrap();
    car.bytes[data + 1000] ^= 1;
    let from = car.write(&flist.home().join("a.car"));
    let reader = Flist::new();
    let mounted = reader.mount_with(&cid, &["--from", &from, "--deadline", "20"]);
    let mut failed = 0;
    for n in 0..6 {
        let file = format!("file-{n}");
        match fs::read(mounted.join(&file)) {
            Ok(bytes) => {
                assert!(bytes == fs::read(flist.home().join("source").join(file)).unwrap(), "WRONG BYTES")
            }
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(libc::EIO));
                failed += 1;
            }
        }
    }
    assert!((1..6).contains(&failed), "{failed} files failed");
    let log = fs::read_to_string(reader.cache().join("daemon.log")).unwrap();
    let place = format!("offset={data}");
    assert!(log.contains(&name) && log.contains(&place), "no {name} at {place}: {log}");
    let outcome = flist.run_within(SOON * 3, args!["check", cid, "--from", from]);
    assert_eq!(outcome.code, 1);
    assert!(
        outcome.text().contains(&name) && outcome.text().contains(&format!("offset {data}")),
        "{}",
        outcome.text()
    );
}

#[test]
fn a_file_that_is_cut_or_overwritten_while_it_is_mounted_gives_errors_and_no_wrong_byte() {
    let (flist, cid) = packed();
    let path = flist.home().join("a.car");
    let car = Car::of(flist.store(), &cid, |_| true);
    let from = car.write(&path);
    let reader = Flist::new();
    let mounted = reader.mount_with(&cid, &["--from", &from, "--deadline", "20", "--mode", "fuse"]);
    let file = fs::File::options().write(true).open(&path).unwrap();
    file.write_all_at(&vec![0x55; car.bytes.len() / 2], (car.bytes.len() / 2) as u64).unwrap();
    file.set_len((car.bytes.len() * 3 / 4) as u64).unwrap();
    let source = flist.home().join("source");
    let mut failed = 0;
    for rel in synthetic::files(&source) {
        match fs::read(mounted.join(&rel)) {
            Ok(bytes) => {
                assert!(bytes == fs::read(source.join(&rel)).unwrap(), "WRONG BYTES in {}", rel.display())
            }
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(libc::EIO), "{error}");
                failed += 1;
            }
        }
    }
    assert!(failed > 0, "half of the archive is gone");
}

#[test]
fn an_archive_on_an_flist_of_ours_is_refused() {
    let (flist, cid) = Flist::with_image();
    let source = flist.home().join("with-car");
    let files = tree::Builder::at(&source);
    files.file("a.car", &Car::of(flist.store(), &cid, |_| true).bytes);
    files.finish();
    let outer = flist.pack(&source);
    let mounted = flist.mount(&outer);
    let from = format!("car:{}", mounted.join("a.car").display());
    let outcome = flist.run_within(SOON, args!["mount", cid, flist.mountpoint(), "--from", from]);
    explains(&outcome, &["would wait for itself", mounted.path().to_str().unwrap()]);
    // Looking into it from another process waits for nobody.
    flist.ok(args!["ls", cid, "--from", from]);
}
