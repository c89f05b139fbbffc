//! An image never changes: every attempt is EROFS, also for root.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt, chown, symlink};

use harness::{Flist, Mounted, compare, synthetic};
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags, mknodat, setxattr, utimensat,
};

type Attempt = (&'static str, fn(&Mounted<'_>) -> io::Result<()>);

const ATTEMPTS: [Attempt; 18] = [
    ("create a file", |m| File::create_new(m.join("new")).map(drop)),
    ("truncate a file by opening", |m| File::create(m.join("hello")).map(drop)),
    ("open for writing", |m| OpenOptions::new().write(true).open(m.join("hello")).map(drop)),
    ("open for reading and writing", |m| {
        OpenOptions::new().read(true).write(true).open(m.join("hello")).map(drop)
    }),
    ("open for appending", |m| OpenOptions::new().append(true).open(m.join("dir/text")).map(drop)),
    ("make a directory", |m| fs::create_dir(m.join("newdir"))),
    ("remove a file", |m| fs::remove_file(m.join("hello"))),
    ("remove a directory", |m| fs::remove_dir(m.join("dir/empty"))),
    ("rename", |m| fs::rename(m.join("hello"), m.join("hallo"))),
    ("rename over", |m| fs::rename(m.join("hello"), m.join("dir/text"))),
    ("make a symlink", |m| symlink("x", m.join("newlink"))),
    ("make a hard link", |m| fs::hard_link(m.join("hello"), m.join("newname"))),
    ("change the mode", |m| fs::set_permissions(m.join("hello"), Permissions::from_mode(0o777))),
    ("change the owner", |m| chown(m.join("hello"), Some(1), Some(1))),
    ("set a time", |m| {
        let time = Timespec { tv_sec: 1, tv_nsec: 1 };
        let times = Timestamps { last_access: time, last_modification: time };
        Ok(utimensat(CWD, m.join("hello"), &times, AtFlags::empty())?)
    }),
    ("set an extended attribute", |m| Ok(setxattr(m.join("hello"), "user.x", b"1", XattrFlags::empty())?)),
    ("remove an extended attribute", |m| Ok(rustix::fs::removexattr(m.join("hello"), "user.x")?)),
    ("make a fifo", |m| Ok(mknodat(CWD, m.join("fifo"), FileType::Fifo, Mode::RUSR, 0)?)),
];

#[test]
fn whoever_tries_to_change_an_image_gets_erofs() {
    let flist = Flist::new();
    let source = flist.home().join("source");
    synthetic::tiny(&source);
    let cid = flist.pack(&source);
    let mounted = flist.mount(&cid);
    for (what, attempt) in ATTEMPTS {
        let error = attempt(&mounted).expect_err(what);
        assert_eq!(error.raw_os_error(), Some(libc::EROFS), "{what}: {error}");
    }
    compare::assert_same(&source, mounted.path());
}

#[test]
fn reading_does_not_change_the_access_time() {
    use std::os::unix::fs::MetadataExt;
    let flist = Flist::new();
    let source = flist.home().join("source");
    synthetic::tiny(&source);
    let cid = flist.pack(&source);
    let mounted = flist.mount(&cid);
    let times = || fs::metadata(mounted.join("hello")).map(|m| (m.atime(), m.mtime(), m.ctime())).unwrap();
    let before = times();
    fs::read(mounted.join("hello")).unwrap();
    assert_eq!(before, times());
    assert_eq!(before.0, before.1, "only one time is stored, and it stands for all three");
}
