//! One tree of every oddity, seen through both modes at once.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use harness::oddities::{self, Scale};
use harness::prng::{FNV_START, fnv1a};
use harness::{Flist, Mode, compare, page_cache, walk};
use rustix::fs::{FileType, Mode as Permissions, OFlags, openat};

/// Larger ones are sparse, and compared where they have data.
const HASHED_UP_TO: i64 = 64 << 20;

/// What [`compare`] leaves out, since it judges copies too: inode numbers, sizes and links of directories, blocks.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    ino: u64,
    mode: u32,
    links: u64,
    size: i64,
    blocks: i64,
    times: [i64; 6],
    contents: u64,
}

#[test]
fn both_modes_show_the_same_tree_also_when_the_kernel_has_forgotten_it() {
    let flist = Flist::new();
    let source = flist.home().join("source");
    oddities::build(&source, Scale { wide: 2_000, levels: 200 });
    let cid = flist.pack(&source);
    let [kernel, fuse] = Mode::BOTH.map(|mode| flist.mount_with(&cid, &["--mode", mode.name()]));
    assert_eq!([kernel.mode(), fuse.mode()], Mode::BOTH);
    compare::assert_same(&source, kernel.path());
    compare::assert_same(kernel.path(), fuse.path());
    let cached = all(kernel.path());
    page_cache::drop_everything();
    let seen = [all(kernel.path()), all(fuse.path())];
    for (rel, expected) in &cached {
        for (mode, seen) in Mode::BOTH.into_iter().zip(&seen) {
            assert_eq!(seen.get(rel), Some(expected), "{mode:?}: {}", rel.display());
        }
    }
    assert_eq!(seen.map(|seen| seen.len()), [cached.len(); 2]);
}

/// Everything below `root` but the root, whose inode number is its mode's own.
fn all(root: &Path) -> BTreeMap<PathBuf, Seen> {
    let mut out = BTreeMap::new();
    walk::walk(root, &mut |v| {
        let s = &v.stat;
        let is_hashed = FileType::from_raw_mode(s.st_mode).is_file() && s.st_size <= HASHED_UP_TO;
        let seen = Seen {
            ino: s.st_ino,
            mode: s.st_mode,
            links: s.st_nlink,
            size: s.st_size,
            blocks: s.st_blocks,
            times: [
                s.st_atime,
                s.st_atime_nsec as i64,
                s.st_mtime,
                s.st_mtime_nsec as i64,
                s.st_ctime,
                s.st_ctime_nsec as i64,
            ],
            contents: if is_hashed { hash(v.dir, v.name) } else { 0 },
        };
        if !v.rel.as_os_str().is_empty() {
            out.insert(v.rel.clone(), seen);
        }
    })
    .unwrap_or_else(|e| panic!("walk {}: {e}", root.display()));
    out
}

fn hash(dir: &OwnedFd, name: &std::ffi::OsStr) -> u64 {
    let file = openat(dir, name, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Permissions::empty());
    let mut bytes = Vec::new();
    File::from(file.unwrap()).read_to_end(&mut bytes).unwrap();
    fnv1a(FNV_START, &bytes)
}
