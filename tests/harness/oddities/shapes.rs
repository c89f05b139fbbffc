//! Shapes of directories: very wide, very deep, and exactly around the size of a directory block.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};
use rustix::io::write;

use super::Scale;
use crate::tree::Builder;
use crate::walk::open_dir;

pub(super) fn plant(tree: &Builder, scale: Scale) {
    wide(tree, scale.wide);
    deep(tree, scale.levels);
    around_a_block(tree);
}

/// Mostly empty files; every hundredth has contents, every thousandth is a directory.
fn wide(tree: &Builder, entries: usize) {
    tree.dir("wide");
    let dir = open_dir(CWD, tree.path("wide").as_os_str()).expect("the directory was just made");
    for i in 0..entries {
        let name = format!("entry-{i:06}{}", "-".repeat(i % 23));
        if i % 1000 == 999 {
            mkdirat(&dir, &name, Mode::from_raw_mode(0o755)).expect("mkdir in wide");
            continue;
        }
        let file = openat(
            &dir,
            &name,
            OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC,
            Mode::from_raw_mode(0o644),
        )
        .expect("create in wide");
        if i % 100 == 0 {
            write(&file, name.as_bytes()).expect("write in wide");
        }
    }
}

/// `levels` directories in one another with names of 60 bytes; beyond 67 the path is longer than PATH_MAX.
fn deep(tree: &Builder, levels: usize) {
    tree.dir("deep");
    let mut dir = open_dir(CWD, tree.path("deep").as_os_str()).expect("the directory was just made");
    for level in 0..levels {
        let name = format!("{level:04}{}", "d".repeat(56));
        mkdirat(&dir, &name, Mode::from_raw_mode(0o755)).expect("mkdir in deep");
        dir = open_dir(&dir, OsStr::from_bytes(name.as_bytes())).expect("the directory was just made");
        if level % 50 == 49 || level + 1 == levels {
            let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
            let file = openat(&dir, "file", flags, Mode::from_raw_mode(0o600)).expect("create in deep");
            write(&file, format!("level {level}").as_bytes()).expect("write in deep");
        }
    }
}

/// An EROFS directory block has 4,096 bytes: 12 for each entry, and the names. `.` and `..` take 27.
fn around_a_block(tree: &Builder) {
    for spare in -3_i32..=3 {
        let dir = format!("blocks/spare_{}", spare + 3);
        tree.dir(&dir);
        // 34 names of 100 bytes take 3,808; the last one fills the block up to `spare` bytes.
        for i in 0..34 {
            tree.file(format!("{dir}/{i:0100}"), b"");
        }
        let last = 4096 - 27 - 34 * 112 - 12 - spare;
        tree.file(format!("{dir}/{}", "z".repeat(last as usize)), b"");
    }
    // An inline tail must not cross a block: directories of every small size, one behind the other.
    for i in 0..64 {
        let dir = format!("blocks/tail_{i:02}");
        tree.dir(&dir);
        for j in 0..i {
            tree.file(format!("{dir}/{}{j}", "t".repeat(i)), b"");
        }
    }
}
