//! After kill -9 of the daemon: what still works, what fails and how, and that nothing is left of it.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::process::Command;
use std::time::{Duration, Instant};

use harness::connections::Connections;
use harness::mapping::{self, Mapping};
use harness::tree::Builder;
use harness::{
    Flist, Mode, Mounted, SplitMix64, args, compare, mount_table, page_cache, process, wait, walk,
};
use rustix::process::{Pid, Signal, kill_process};

const SOON: Duration = Duration::from_secs(20);

/// An image of small files, a big one and a program.
fn image() -> (Flist, String) {
    let flist = Flist::new();
    let tree = Builder::at(&flist.home().join("source"));
    let mut rng = SplitMix64::new(9);
    tree.dir("dir/deep/er");
    for file in 0..300 {
        tree.file(format!("dir/{file:03}"), &rng.bytes(8_000 + file));
    }
    tree.file("big", &rng.bytes(8 << 20));
    fs::copy("/bin/true", tree.path("dir/deep/program")).unwrap();
    tree.mode("dir/deep/program", 0o755);
    tree.finish();
    let cid = flist.pack(&flist.home().join("source"));
    (flist, cid)
}

fn kill(mounted: &Mounted<'_>) {
    kill_process(Pid::from_raw(mounted.pid()).unwrap(), Signal::KILL).unwrap();
    wait::for_the_end_of(mounted.pid(), SOON);
}

/// A read that needs the daemon is an error at once.
#[track_caller]
fn fails_at_once<T: std::fmt::Debug>(mode: Mode, what: &str, read: impl FnOnce() -> std::io::Result<T>) {
    let began = Instant::now();
    let error = read().expect_err(what);
    assert!(began.elapsed() < SOON, "{what} took {:?}", began.elapsed());
    let expected: &[i32] = match mode {
        Mode::Kernel => &[libc::EIO],
        // A page of an open file cannot be had, and a new file cannot be asked for.
        Mode::Fuse => &[libc::ENOTCONN, libc::ECONNABORTED, libc::EIO],
    };
    assert!(error.raw_os_error().is_some_and(|code| expected.contains(&code)), "{what}: {error}");
}

#[test]
fn names_and_cached_contents_outlive_the_daemon_and_the_rest_is_an_error_at_once() {
    let (flist, cid) = image();
    let source = flist.home().join("source");
    let mounted = flist.mount_with(&cid, &["--mode", "kernel"]);
    let expected = fs::read(source.join("dir/000")).unwrap();
    let mut cached = File::open(mounted.join("dir/000")).unwrap();
    assert!(fs::read(mounted.join("dir/000")).unwrap() == expected);
    let big = File::open(mounted.join("big")).unwrap();
    // Mapped, so that nobody on the machine drops it from the page cache meanwhile.
    let kept = [Mapping::new(&cached, expected.len()), Mapping::new(&big, 4096)];
    kill(&mounted);

    // Contents that the kernel has, through read, a new descriptor and mmap.
    let mut bytes = Vec::new();
    cached.read_to_end(&mut bytes).unwrap();
    assert!(bytes == expected && fs::read(mounted.join("dir/000")).unwrap() == expected);
    assert_eq!(mapping::byte_at(&cached, 5_000), Ok(expected[5_000]));
    let mut page = [0; 4096];
    big.read_exact_at(&mut page, 0).unwrap();
    assert_eq!(page, kept[1].bytes());

    // Names, also those that nobody looked at, also after the kernel forgot them.
    for _ in 0..2 {
        assert_eq!(sizes(mounted.path()), sizes(&source));
        page_cache::drop_names();
    }

    // Contents that it has not: far from what was read, since read-ahead brings neighbours.
    fails_at_once(Mode::Kernel, "a small file", || fs::read(mounted.join("dir/299")));
    fails_at_once(Mode::Kernel, "an open file", || big.read_at(&mut [0; 4096], 6 << 20));
    assert_eq!(mapping::byte_at(&big, 7 << 20), Err(libc::SIGBUS));
    let program = mounted.join("dir/deep/program");
    fails_at_once(Mode::Kernel, "a program", || Command::new(&program).spawn().map(drop));
}

/// Size of every regular file, and the kind of the rest.
fn sizes(root: &std::path::Path) -> Vec<(std::path::PathBuf, u32, i64)> {
    let mut out = Vec::new();
    walk::walk(root, &mut |v| {
        let is_file = rustix::fs::FileType::from_raw_mode(v.stat.st_mode).is_file();
        out.push((v.rel.clone(), v.stat.st_mode, if is_file { v.stat.st_size } else { 0 }));
    })
    .unwrap();
    out.sort();
    out
}

#[test]
fn whoever_unmounts_a_dead_mount_leaves_nothing_of_it() {
    let (flist, cid) = image();
    let connections = Connections::new(flist.home());
    let dir = flist.mountpoint();
    for by in ["flist umount", "umount", "the next mount"] {
        let mounted = flist.mount_at(&cid, &dir, &[]);
        let connection = connections.only_of(mounted.pid());
        fs::read(mounted.join("dir/001")).unwrap();
        kill(&mounted);
        match by {
            "flist umount" => drop(flist.ok(args!["umount", dir])),
            "umount" => drop(process::tool("umount", args![dir])),
            _ => {
                let next = flist.mount_at(&cid, &dir, &[]);
                assert_eq!(mount_table::under(&dir).len(), 1, "the dead mount was cleared, not covered");
                compare::assert_same(&flist.home().join("source"), next.path());
                next.umount();
            }
        }
        mount_table::assert_none_under(&dir);
        wait::until(&format!("the connection is gone after {by}"), SOON, || !connections.has(connection));
    }
}

/// The kernel's superblock of a dead mount lives on, and a new daemon of the same cache must not take it for its own.
#[test]
fn an_orphan_elsewhere_does_not_disturb_and_is_cleared_by_the_next_daemon() {
    let (flist, cid) = image();
    let source = flist.home().join("source");
    let orphan = flist.mount(&cid);
    let expected = fs::read(source.join("dir/010")).unwrap();
    let mut open = File::open(orphan.join("dir/010")).unwrap();
    let kept = Mapping::new(&open, expected.len());
    kill(&orphan);
    let living = flist.mount(&cid);
    assert_ne!(living.pid(), orphan.pid());
    compare::assert_same(&source, living.path());
    assert_eq!(flist.mounts().len(), 1, "only what is served is listed");
    let mut bytes = Vec::new();
    open.read_to_end(&mut bytes).unwrap();
    assert!(bytes == expected, "what the kernel has of the orphan");
    drop((open, kept));
    flist.ok(args!["umount", orphan.path()]);
    assert!(mount_table::at(orphan.path()).is_none());
    compare::assert_same(&source, living.path());
    living.umount();
}

#[test]
fn a_dead_mount_that_is_detached_in_use_is_freed_by_its_last_user() {
    let (flist, cid) = image();
    let connections = Connections::new(flist.home());
    let expected = fs::read(flist.home().join("source/dir/020")).unwrap();
    let mounted = flist.mount_with(&cid, &["--mode", "kernel"]);
    let connection = connections.only_of(mounted.pid());
    let file = File::open(mounted.join("dir/020")).unwrap();
    let mapping = Mapping::new(&file, 4096);
    assert!(mapping.bytes() == &expected[..4096]);
    kill(&mounted);
    process::tool("umount", args!["-l", mounted.path()]);
    assert!(mount_table::at(mounted.path()).is_none());
    assert!(mapping.bytes() == &expected[..4096], "the page stays");
    assert!(connections.has(connection), "somebody still uses it");
    drop(mapping);
    drop(file);
    wait::until("the connection is gone with its last user", SOON, || !connections.has(connection));
}
