//! Lookup and readdir.

use std::collections::{HashMap, HashSet};
use std::ffi::{CStr, CString, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirEntryExt, MetadataExt};
use std::path::Path;

use harness::prng::SplitMix64;
use harness::tree::Builder;
use harness::{Flist, synthetic};

fn wide(flist: &Flist, entries: usize) -> String {
    let source = flist.home().join("source");
    let tree = Builder::at(&source);
    tree.dir("wide");
    for i in 0..entries {
        tree.file(format!("wide/{i:06}{}", "-".repeat(i % 17)), b"");
    }
    tree.finish();
    flist.pack(&source)
}

#[test]
fn readdir_lists_a_hundred_thousand_entries_once_each() {
    let flist = Flist::new();
    let cid = wide(&flist, 100_000);
    let mounted = flist.mount(&cid);
    let mut seen = HashSet::new();
    for entry in fs::read_dir(mounted.join("wide")).unwrap() {
        let entry = entry.unwrap();
        assert!(entry.file_type().unwrap().is_file());
        assert!(seen.insert(entry.file_name()), "{:?} is listed twice", entry.file_name());
    }
    assert_eq!(seen.len(), 100_000);
    for entry in fs::read_dir(flist.home().join("source/wide")).unwrap() {
        assert!(seen.remove(&entry.unwrap().file_name()));
    }
    // The same through a second pass, which the kernel may answer from its own cache.
    assert_eq!(fs::read_dir(mounted.join("wide")).unwrap().count(), 100_000);
}

#[test]
fn a_listing_resumes_at_every_place_that_telldir_named() {
    let flist = Flist::new();
    let cid = wide(&flist, 5_000);
    let mounted = flist.mount(&cid);
    let mut dir = DirStream::open(&mounted.join("wide"));
    let mut places = Vec::new();
    let mut all = Vec::new();
    loop {
        let place = dir.tell();
        let Some(name) = dir.next() else { break };
        places.push((place, name.clone()));
        all.push(name);
    }
    assert_eq!(all.len(), 5_002, "with `.` and `..`");
    SplitMix64::new(11).shuffle(&mut places);
    for (place, name) in places.iter().take(500) {
        dir.seek(*place);
        assert_eq!(dir.next().as_ref(), Some(name), "after seekdir to {place}");
    }
    dir.rewind();
    let again: Vec<OsString> = std::iter::from_fn(|| dir.next()).collect();
    assert_eq!(again, all, "after rewinddir");
}

/// `ls -i`, tar and find trust what readdir says without asking stat.
#[test]
fn readdir_and_stat_agree_on_inode_and_kind() {
    let flist = Flist::new();
    let source = flist.home().join("source");
    harness::oddities::build(&source, harness::oddities::Scale { wide: 10, levels: 2 });
    let cid = flist.pack(&source);
    let mounted = flist.mount(&cid);
    let mut inodes: HashMap<u64, u64> = HashMap::new();
    for dir in ["", "kinds", "hardlinks", "symlinks", "names/dots"] {
        for entry in fs::read_dir(mounted.join(dir)).unwrap() {
            let entry = entry.unwrap();
            let stat = fs::symlink_metadata(entry.path()).unwrap();
            assert_eq!(entry.ino(), stat.ino(), "{}", entry.path().display());
            assert_eq!(entry.file_type().unwrap(), stat.file_type(), "{}", entry.path().display());
            let links = inodes.insert(stat.ino(), stat.nlink());
            assert!(links.is_none_or(|n| n == stat.nlink() && n > 1), "inode {} twice", stat.ino());
        }
        let dot = fs::metadata(mounted.join(dir).join(".")).unwrap().ino();
        assert_eq!(dot, fs::metadata(mounted.join(dir)).unwrap().ino());
    }
    let up = fs::metadata(mounted.join("kinds/..")).unwrap().ino();
    assert_eq!(up, fs::metadata(mounted.path()).unwrap().ino());
}

#[test]
fn a_name_that_is_not_there_is_enoent_at_once_and_again() {
    let flist = Flist::new();
    let source = flist.home().join("source");
    synthetic::tiny(&source);
    let cid = flist.pack(&source);
    let mounted = flist.mount(&cid);
    let errno = |rel: &Path| fs::symlink_metadata(mounted.join(rel)).unwrap_err().raw_os_error();
    for _ in 0..3 {
        for rel in ["hell", "helloo", "Hello", "dir/hello", "dir/zzz", "\u{1}", "~"] {
            assert_eq!(errno(Path::new(rel)), Some(libc::ENOENT), "{rel}");
        }
    }
    assert_eq!(errno(Path::new("hello/below")), Some(libc::ENOTDIR));
    assert_eq!(errno(Path::new(&"n".repeat(255))), Some(libc::ENOENT));
    assert_eq!(errno(Path::new(&"n".repeat(256))), Some(libc::ENAMETOOLONG));
    assert_eq!(errno(Path::new(&"n".repeat(2000))), Some(libc::ENAMETOOLONG));
    // The kernel remembers a miss for ever: the image cannot change.
    let before = mounted.status().requests;
    for _ in 0..1000 {
        assert_eq!(errno(Path::new("dir/zzz")), Some(libc::ENOENT));
    }
    assert!(mounted.status().requests < before + 50, "1000 misses of one name cost requests");
}

#[test]
fn symlinks_lead_where_they_point_and_loops_are_eloop() {
    let flist = Flist::new();
    let source = flist.home().join("source");
    let tree = Builder::at(&source);
    tree.dir("a/b");
    tree.file("a/b/file", b"here");
    for (link, target) in [
        ("x", "y"),
        ("y", "x"),
        ("self", "self"),
        ("short", "a/b"),
        ("a/b/up", "../../a"),
        ("deep", "short/up/b/file"),
        ("out", "/etc"),
    ] {
        tree.symlink(link, target);
    }
    tree.finish();
    let cid = flist.pack(&source);
    let mounted = flist.mount(&cid);
    for rel in ["x", "y", "self", "x/below"] {
        assert_eq!(fs::read(mounted.join(rel)).unwrap_err().raw_os_error(), Some(libc::ELOOP), "{rel}");
    }
    for rel in ["short/file", "deep", "a/b/up/b/file"] {
        assert_eq!(fs::read(mounted.join(rel)).unwrap(), b"here", "{rel}");
    }
    assert_eq!(
        fs::canonicalize(mounted.join("out")).unwrap(),
        Path::new("/etc"),
        "an absolute target is the caller's"
    );
}

/// A directory stream of libc, for telldir and seekdir.
struct DirStream(*mut libc::DIR);

impl DirStream {
    fn open(path: &Path) -> Self {
        let path = CString::new(path.as_os_str().as_bytes()).unwrap();
        // SAFETY: the path is NUL-terminated and lives over the call.
        let dir = unsafe { libc::opendir(path.as_ptr()) };
        assert!(!dir.is_null(), "opendir: {}", std::io::Error::last_os_error());
        Self(dir)
    }

    fn next(&mut self) -> Option<OsString> {
        // SAFETY: the stream is open until drop, and the entry is copied before the next call.
        let name = unsafe {
            let entry = libc::readdir(self.0);
            (!entry.is_null()).then(|| CStr::from_ptr((*entry).d_name.as_ptr()).to_bytes().to_vec())
        };
        name.map(OsString::from_vec)
    }

    fn tell(&mut self) -> libc::c_long {
        // SAFETY: the stream is open until drop.
        unsafe { libc::telldir(self.0) }
    }

    fn seek(&mut self, place: libc::c_long) {
        // SAFETY: the stream is open until drop, and the place came from telldir on it.
        unsafe { libc::seekdir(self.0, place) }
    }

    fn rewind(&mut self) {
        // SAFETY: the stream is open until drop.
        unsafe { libc::rewinddir(self.0) }
    }
}

impl Drop for DirStream {
    fn drop(&mut self) {
        // SAFETY: opened once, closed once.
        unsafe { libc::closedir(self.0) };
    }
}
