//! Bad input gets an error that says what, where and what next, within five seconds, and leaves nothing mounted.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::time::Duration;

use harness::{Flist, Outcome, args, cid, mount_table, process, store, synthetic};

/// A command whose only source refuses ends within this time.
const FIVE_SECONDS: Duration = Duration::from_secs(5);
const NOBODY: u32 = 65_534;

/// An error for a person: what went wrong with which thing, and no trace of the program's insides.
#[track_caller]
fn explains(outcome: &Outcome, code: i32, names: &str) {
    assert_eq!(outcome.code, code, "{}: {}", outcome.command, outcome.stderr);
    // What `check` finds is its result, and goes to stdout; nobody else has one.
    let found = if outcome.command.contains(" check ") { outcome.text() } else { String::new() };
    assert_eq!(outcome.text(), found, "{}: an error on stdout", outcome.command);
    let said = format!("{found}{}", outcome.stderr);
    assert!(said.contains(names), "{}: does not name {names}: {said}", outcome.command);
    for inside in ["panicked", "RUST_BACKTRACE", "unwrap", "src/"] {
        assert!(!outcome.stderr.contains(inside), "{}: {}", outcome.command, outcome.stderr);
    }
}

/// As [`explains`], and it gives some advice.
#[track_caller]
fn explains_and_helps(outcome: &Outcome, code: i32, names: &str) {
    explains(outcome, code, names);
    const ADVICE: [&str; 18] = [
        "create",
        "choose",
        "name another",
        "pack ",
        "umount",
        "begins with",
        "beginning with",
        "load ",
        "copy",
        "must ",
        "run ",
        "use ",
        "ask ",
        "check ",
        "a source is",
        "--from",
        "--cache",
        "lists what",
    ];
    let said = outcome.stderr.to_lowercase().replace(&names.to_lowercase(), "");
    assert!(
        ADVICE.iter().any(|a| said.contains(a)),
        "{}: does not say what next: {}",
        outcome.command,
        outcome.stderr
    );
}

#[test]
fn a_reference_that_is_no_cid_of_ours_is_refused_by_every_command() {
    let (flist, good) = Flist::with_image();
    let dir = flist.mountpoint();
    let digest = [0xab; 32];
    let malformed = [
        "nonsense",
        "../../etc/passwd",
        "QmdfTbBqBPQ7VNxZEYEj14VmRuZBkqFbiwReogJgS1zR1n",
        &good[..good.len() - 1],
        &format!("{good}aa"),
        &good.to_uppercase(),
        &cid::encode(cid::DAG_PB, cid::SHA2_256, &digest),
        &cid::encode(cid::RAW, cid::SHA2_256, &digest),
        &cid::encode(cid::DAG_CBOR, cid::BLAKE3, &digest),
        &cid::encode(cid::DAG_CBOR, cid::SHA2_512, &[0xab; 64]),
        &cid::encode(cid::DAG_CBOR, cid::IDENTITY, b"root"),
        &cid::encode(cid::DAG_CBOR, cid::SHA2_256, &digest[..20]),
    ];
    for reference in malformed {
        for command in
            [args!["mount", reference, dir], args!["check", reference], args!["cat", reference, "hello"]]
        {
            let outcome = flist.run_within(FIVE_SECONDS, command);
            // Whether a word can be a reference at all is a question of usage; whether we know it is one of data.
            let code = if outcome.code == 2 { 2 } else { 1 };
            explains_and_helps(&outcome, code, reference);
        }
    }
    let empty = flist.run_within(FIVE_SECONDS, args!["mount", "", dir]);
    assert!(matches!(empty.code, 1 | 2), "{}", empty.stderr);
    mount_table::assert_none_under(flist.home().path());
}

#[test]
fn an_unknown_cid_a_missing_store_and_an_empty_one_are_told_apart_from_bad_luck() {
    let (flist, good) = Flist::with_image();
    let dir = flist.mountpoint();
    let unknown = cid::encode(cid::DAG_CBOR, cid::SHA2_256, &[0xcd; 32]);
    let empty = format!("dir:{}", flist.home().dir("empty").display());
    let missing = format!("dir:{}", flist.home().join("missing").display());
    for (reference, from) in [(&unknown, &flist.spec()), (&good, &empty), (&good, &missing)] {
        for command in ["mount", "check", "info", "ls", "unpack", "run"] {
            let mut words = args![command, reference, "--from", from];
            match command {
                "mount" => words.insert(2, dir.clone().into()),
                "unpack" => words.insert(2, flist.home().join("unpacked").into()),
                "run" => words.extend(args!["--", "/bin/true"]),
                _ => {}
            }
            let outcome = flist.run_within(FIVE_SECONDS, words);
            // Where it looked, and what for, unless there is nowhere to look.
            let code = if command == "run" { 125 } else { 1 };
            explains_and_helps(&outcome, code, from.trim_start_matches("dir:"));
            if *from != missing {
                explains(&outcome, code, reference);
            }
        }
    }
    assert!(
        !flist.home().join("unpacked").exists()
            || fs::read_dir(flist.home().join("unpacked")).unwrap().count() == 0
    );
    assert!(!flist.home().join("missing").exists(), "a command that reads makes no store");
    mount_table::assert_none_under(flist.home().path());
}

#[test]
fn a_missing_block_fails_the_mount_or_the_read_but_hangs_nothing() {
    let (flist, good) = Flist::with_image();
    let source = flist.home().join("source");
    for (name, path) in store::objects(flist.store()) {
        let damage = store::damage(&path, &store::How::Remove);
        let dir = flist.mountpoint();
        let outcome = flist.run_within(FIVE_SECONDS, args!["mount", good, dir]);
        if outcome.code == 0 {
            let mounted = flist.adopt(&dir);
            let start = std::time::Instant::now();
            for rel in synthetic::files(&source) {
                if let Err(e) = fs::read(mounted.join(&rel)) {
                    assert_eq!(e.raw_os_error(), Some(libc::EIO), "{}: {e}", rel.display());
                }
            }
            assert!(start.elapsed() < FIVE_SECONDS * 2, "reads without {name} took {:?}", start.elapsed());
        } else {
            explains(&outcome, 1, &name);
        }
        drop(damage);
    }
    flist.ok(args!["check", good]);
}

#[test]
fn a_store_without_permission_is_named() {
    let (flist, good) = Flist::with_image();
    fs::set_permissions(flist.store(), fs::Permissions::from_mode(0o700)).unwrap();
    let outcome = run_as_nobody(&flist, args!["ls", good]);
    explains_and_helps(&outcome, 1, &flist.store().display().to_string());
    let refused =
        ["permission", "may not be read"].iter().any(|words| outcome.stderr.to_lowercase().contains(words));
    assert!(refused, "not told from an empty store: {}", outcome.stderr);

    fs::set_permissions(flist.store(), fs::Permissions::from_mode(0o755)).unwrap();
    let before = store::objects(flist.store());
    let mine = flist.home().dir("mine");
    fs::write(mine.join("new"), b"not in the store yet").unwrap();
    let outcome = run_as_nobody(&flist, args!["pack", mine]);
    explains_and_helps(&outcome, 1, &flist.store().display().to_string());
    assert_eq!(before, store::objects(flist.store()));
}

#[test]
fn what_cannot_be_packed_is_named() {
    let (flist, _) = Flist::with_image();
    for missing in ["no-such-directory", "source/hello"] {
        let path = flist.home().join(missing);
        let outcome = flist.run_within(FIVE_SECONDS, args!["pack", path]);
        explains(&outcome, 1, &path.display().to_string());
    }
    let secret = flist.home().dir("secret");
    fs::write(secret.join("file"), b"x").unwrap();
    fs::set_permissions(secret.join("file"), fs::Permissions::from_mode(0o600)).unwrap();
    let outcome = run_as_nobody(
        &flist,
        args!["pack", secret, "--to", format!("dir:{}", flist.home().join("n").display())],
    );
    assert_eq!(outcome.code, 1, "{}", outcome.stderr);
}

#[test]
fn a_mountpoint_that_is_missing_a_file_or_taken_is_refused() {
    let (flist, good) = Flist::with_image();
    let missing = flist.home().join("no-such-directory");
    explains_and_helps(
        &flist.run_within(FIVE_SECONDS, args!["mount", good, missing]),
        1,
        "no-such-directory",
    );
    let file = flist.home().join("source/hello");
    explains(&flist.run_within(FIVE_SECONDS, args!["mount", good, file]), 1, "source/hello");
    let mounted = flist.mount(&good);
    let taken = mounted.path().display().to_string();
    explains_and_helps(&flist.run_within(FIVE_SECONDS, args!["mount", good, taken]), 1, &taken);
    assert_eq!(fs::read(mounted.join("hello")).unwrap(), b"hello, world\n", "the first mount is unharmed");
    assert_eq!(mount_table::under(flist.home().path()).len(), 1);
    mounted.umount();
    explains_and_helps(&flist.run_within(FIVE_SECONDS, args!["umount", taken]), 1, &taken);
    explains(&flist.run_within(FIVE_SECONDS, args!["umount", missing]), 1, "no-such-directory");
    // Not ours, so not ours to unmount.
    let foreign = harness::tmpfs::Tmpfs::mount(&flist.home().dir("foreign"), 1);
    explains(&flist.run_within(FIVE_SECONDS, args!["umount", foreign.path()]), 1, "foreign");
    assert!(mount_table::at(foreign.path()).is_some());
}

/// A daemon that reads its store or cache through its own mount waits for itself.
#[test]
fn a_store_or_cache_under_its_own_mount_is_refused() {
    let (flist, good) = Flist::with_image();
    // An image whose content is a store with the first image, so that everything is there but the sense.
    let copy = flist.home().join("copy");
    process::tool("cp", args!["-a", flist.store(), copy]);
    let store_image = flist.pack(&copy);
    let mounted = flist.mount(&store_image);
    let dir = flist.mountpoint();
    let from = format!("dir:{}", mounted.path().display());
    let outcome = flist.run_within(FIVE_SECONDS, args!["mount", good, dir, "--from", from]);
    explains_and_helps(&outcome, 1, &mounted.path().display().to_string());
    let cache = mounted.join("cache");
    let outcome = flist.run_within(FIVE_SECONDS, args!["mount", good, dir, "--cache", cache]);
    explains_and_helps(&outcome, 1, &mounted.path().display().to_string());
    assert!(mount_table::at(&dir).is_none());
    drop(mounted);
    // The other way round: the new mount would cover its own store, or its own cache.
    for under in [flist.home().path(), flist.store()] {
        let outcome = flist.run_within(FIVE_SECONDS, args!["mount", good, under]);
        explains_and_helps(&outcome, 1, &under.display().to_string());
    }
    mount_table::assert_none_under(flist.home().path());
}

#[test]
fn a_source_of_an_unknown_kind_is_refused() {
    let (flist, good) = Flist::with_image();
    for spec in ["ftp:somewhere", "somewhere", "dir:", ":", "dir"] {
        let outcome = flist.run_within(FIVE_SECONDS, args!["ls", good, "--from", spec]);
        let code = if outcome.code == 2 { 2 } else { 1 };
        explains_and_helps(&outcome, code, spec);
    }
    let outcome =
        flist.run_within(FIVE_SECONDS, args!["pack", flist.home().join("source"), "--to", "ftp:somewhere"]);
    let code = if outcome.code == 2 { 2 } else { 1 };
    explains_and_helps(&outcome, code, "ftp:somewhere");
}

#[test]
fn a_machine_without_fuse_is_told_so() {
    let (flist, good) = Flist::with_image();
    let dir = flist.mountpoint();
    let script = "mount -t tmpfs none /dev && mknod -m 666 /dev/null c 1 3 && mknod -m 666 /dev/urandom c 1 9 && exec \"$@\"";
    let mut command = std::process::Command::new("unshare");
    command.args(["--mount", "sh", "-c", script, "sh"]).arg(flist.bin()).args(args!["mount", good, dir]);
    flist.environment(&mut command);
    let outcome = process::run(&mut command, FIVE_SECONDS);
    explains_and_helps(&outcome, 1, "/dev/fuse");
    mount_table::assert_none_under(flist.home().path());
}

#[test]
fn the_daemon_of_another_user_is_not_used() {
    let (flist, good) = Flist::with_image();
    let mounted = flist.mount(&good);
    // Nobody may even read the store, but the cache and its daemon belong to root.
    let dir = flist.mountpoint();
    chown(&dir, Some(NOBODY), Some(NOBODY)).unwrap();
    let outcome = run_as_nobody(&flist, args!["mount", good, dir]);
    explains_and_helps(&outcome, 1, &flist.cache().display().to_string());
    assert!(mount_table::at(&dir).is_none());
    let outcome = run_as_nobody(&flist, args!["umount", mounted.path()]);
    assert_eq!(outcome.code, 1, "{}", outcome.stderr);
    assert_eq!(fs::read(mounted.join("hello")).unwrap(), b"hello, world\n");
}

/// Runs the binary as user and group nobody, from a place that they can reach.
#[track_caller]
fn run_as_nobody(flist: &Flist, args: Vec<std::ffi::OsString>) -> Outcome {
    let bin = flist.home().join("flist-for-nobody");
    if !bin.exists() {
        // By another process: a descriptor of ours could be inherited by a child and make the program "busy".
        process::tool("cp", args![flist.bin(), bin]);
    }
    let mut command = std::process::Command::new(bin);
    command.args(args).uid(NOBODY).gid(NOBODY).current_dir(Path::new("/"));
    flist.environment(&mut command);
    process::run(&mut command, FIVE_SECONDS)
}
