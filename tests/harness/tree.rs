//! Plants files of every kind below one directory, then gives everything a fixed time.
//!
//! Calls panic with the path: a tree that cannot be planted makes the test meaningless. Paths are relative to the root;
//! the empty path is the root itself.

use std::collections::HashMap;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags, lsetxattr, makedev, mknodat, utimensat,
};

use crate::prng::{FNV_START, fnv1a};
use crate::walk::walk;

/// A tree being planted.
pub struct Builder {
    root: PathBuf,
    times: HashMap<PathBuf, (i64, u32)>,
}

impl Builder {
    /// Starts with an empty directory at `root`, which must not exist or be empty.
    pub fn at(root: &Path) -> Self {
        fs::create_dir_all(root).unwrap_or_else(|e| panic!("mkdir {}: {e}", root.display()));
        Self { root: root.to_owned(), times: HashMap::new() }
    }

    /// The real path of `rel`.
    pub fn path(&self, rel: impl AsRef<Path>) -> PathBuf {
        let rel = rel.as_ref();
        if rel.as_os_str().is_empty() { self.root.clone() } else { self.root.join(rel) }
    }

    /// A directory with all its parents.
    pub fn dir(&self, rel: impl AsRef<Path>) {
        must("mkdir", &self.path(&rel), fs::create_dir_all(self.path(&rel)));
    }

    /// A regular file with `bytes`.
    pub fn file(&self, rel: impl AsRef<Path>, bytes: &[u8]) {
        must("write", &self.path(&rel), fs::write(self.path(&rel), bytes));
    }

    /// A sparse file of `size` bytes with data only in `islands`.
    pub fn sparse(&self, rel: impl AsRef<Path>, size: u64, islands: &[(u64, &[u8])]) {
        use std::os::unix::fs::FileExt;
        let path = self.path(rel);
        let file = must("create", &path, File::create(&path));
        must("truncate", &path, file.set_len(size));
        for (offset, bytes) in islands {
            must("write", &path, file.write_all_at(bytes, *offset));
        }
    }

    /// A symlink to `target`.
    pub fn symlink(&self, rel: impl AsRef<Path>, target: impl AsRef<Path>) {
        must("symlink", &self.path(&rel), symlink(target, self.path(&rel)));
    }

    /// A second name `rel` for `old`, also when that is a symlink.
    pub fn hardlink(&self, old: impl AsRef<Path>, rel: impl AsRef<Path>) {
        must("link", &self.path(&rel), fs::hard_link(self.path(old), self.path(&rel)));
    }

    /// A fifo, socket or device.
    pub fn node(&self, rel: impl AsRef<Path>, kind: FileType, major: u32, minor: u32) {
        let path = self.path(rel);
        must("mknod", &path, mknodat(CWD, &path, kind, Mode::from_raw_mode(0o640), makedev(major, minor)));
    }

    /// Permission bits with suid, sgid and sticky.
    pub fn mode(&self, rel: impl AsRef<Path>, mode: u32) {
        must("chmod", &self.path(&rel), fs::set_permissions(self.path(&rel), Permissions::from_mode(mode)));
    }

    /// Owner and group; of a symlink itself. Clears suid, so it comes before [`Builder::mode`].
    pub fn owner(&self, rel: impl AsRef<Path>, uid: u32, gid: u32) {
        must("chown", &self.path(&rel), lchown(self.path(&rel), Some(uid), Some(gid)));
    }

    /// An extended attribute; of a symlink itself.
    pub fn xattr(&self, rel: impl AsRef<Path>, name: &str, value: &[u8]) {
        let path = self.path(rel);
        must(name, &path, lsetxattr(&path, name, value, XattrFlags::empty()));
    }

    /// The time `rel` shall have in the end.
    pub fn time(&mut self, rel: impl AsRef<Path>, seconds: i64, nanoseconds: u32) {
        self.times.insert(rel.as_ref().to_owned(), (seconds, nanoseconds));
    }

    /// Sets every time: the one that was asked for, else one made from the path.
    pub fn finish(self) {
        let mut stamp = |v: &crate::walk::Visit<'_>| {
            let (seconds, nanoseconds) = self
                .times
                .get(&v.rel)
                .copied()
                .unwrap_or_else(|| time_from(v.rel.as_os_str().as_encoded_bytes()));
            let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds.into() };
            let times = Timestamps { last_access: time, last_modification: time };
            must("utimens", &v.rel, utimensat(v.dir, v.name, &times, AtFlags::SYMLINK_NOFOLLOW));
        };
        must("walk", &self.root, walk(&self.root, &mut stamp));
    }
}

/// A time between 2001 and 2036 with nanoseconds; every eighth path gets one common time, as in a real image.
fn time_from(path: &[u8]) -> (i64, u32) {
    let hash = fnv1a(FNV_START, path);
    if hash.is_multiple_of(8) {
        return (1_700_000_000, 123_456_789);
    }
    (1_000_000_000 + (hash % 1_100_000_000) as i64, ((hash >> 32) % 1_000_000_000) as u32)
}

#[track_caller]
fn must<T, E: std::fmt::Display>(what: &str, path: &Path, result: Result<T, E>) -> T {
    result.unwrap_or_else(|e| panic!("cannot plant the test tree: {what} {}: {e}", path.display()))
}
