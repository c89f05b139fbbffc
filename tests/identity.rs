//! Whose mount is it: only what is ours is ever unmounted, and a path is free as soon as nothing of ours is seen there.

use std::fs::{self, File};
use std::io::Read;
use std::time::Duration;

use harness::connections::Connections;
use harness::{Flist, args, mount_table, process, synthetic, tmpfs::Tmpfs, wait};
use rustix::process::{Pid, Signal, kill_process};

/// `umount` once took whatever was on the path: a tmpfs that somebody had mounted over the flist, with all it held.
#[test]
fn what_is_mounted_over_an_flist_is_not_taken() {
    let (flist, cid) = Flist::with_image();
    let mounted = flist.mount(&cid);
    let over = Tmpfs::mount(mounted.path(), 1);
    fs::write(over.path().join("precious"), "data").unwrap();
    for lazy in [&[][..], &["--lazy"]] {
        let mut command = args!["umount", mounted.path()];
        command.extend(lazy.iter().map(Into::into));
        let refused = flist.run(command).exits(1);
        assert!(refused.stderr.contains("mounted over"), "{}", refused.stderr);
    }
    assert_eq!(fs::read(over.path().join("precious")).unwrap(), b"data");
    drop(over);
    mounted.umount();
}

/// A daemon that is told to stop ends its own mounts only.
#[test]
fn sigterm_leaves_what_is_mounted_over_an_flist() {
    let (flist, cid) = Flist::with_image();
    let mounted = flist.mount(&cid);
    let daemon = mounted.pid();
    let over = Tmpfs::mount(mounted.path(), 1);
    fs::write(over.path().join("precious"), "data").unwrap();
    kill_process(Pid::from_raw(daemon).unwrap(), Signal::TERM).unwrap();
    assert!(wait::ends(daemon, process::PATIENCE));
    assert_eq!(fs::read(over.path().join("precious")).unwrap(), b"data");
}

#[test]
fn a_mount_that_was_detached_with_users_gives_its_path_free() {
    let (flist, cid) = Flist::with_image();
    let dir = flist.mountpoint();
    let first = flist.mount_at(&cid, &dir, &[]);
    let rel = synthetic::files(&flist.home().join("source"))[0].clone();
    let mut open = File::open(first.join(&rel)).unwrap();
    flist.ok(args!["umount", "--lazy", dir]);
    assert!(mount_table::at(&dir).is_none());
    let second = flist.mount_at(&cid, &dir, &[]);
    let mut bytes = Vec::new();
    open.read_to_end(&mut bytes).unwrap();
    assert!(bytes == fs::read(second.join(&rel)).unwrap(), "the detached one still serves its user");
    assert_eq!(flist.mounts().len(), 1);
    second.umount();
}

/// Somebody aborts the connection through fusectl: the daemon lives, the mount is dead.
#[test]
fn an_aborted_mount_is_taken_away_and_its_path_is_free() {
    let (flist, cid) = Flist::with_image();
    let dir = flist.mountpoint();
    let first = flist.mount_at(&cid, &dir, &[]);
    let connections = Connections::new(flist.home());
    let of_first = connections.only_of(first.pid());
    let other = flist.mount(&cid);
    connections.abort(of_first);
    wait::until("the dead mount is gone", Duration::from_secs(10), || mount_table::at(&dir).is_none());
    let again = flist.mount_at(&cid, &dir, &[]);
    assert_eq!(fs::read_dir(again.path()).unwrap().count(), fs::read_dir(other.path()).unwrap().count());
    again.umount();
    other.umount();
    assert!(!connections.has(of_first));
}

/// The parent directory may belong to somebody else, who can swap the mountpoint for a symlink at any time.
#[test]
fn a_mountpoint_that_is_a_symlink_is_mounted_where_it_points() {
    let (flist, cid) = Flist::with_image();
    let real = flist.home().dir("real");
    let link = flist.home().join("link");
    std::os::unix::fs::symlink(&real, &link).unwrap();
    flist.ok(args!["mount", cid, link]);
    assert!(mount_table::at(&real).is_some());
    flist.ok(args!["umount", link]);
    assert!(mount_table::at(&real).is_none());
}
