//! Names: of every byte, of every length that matters, not UTF-8, and sorting before `.`.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::tree::Builder;

pub(super) fn plant(tree: &Builder) {
    tree.dir("names/bytes");
    for byte in (1..=255).filter(|b| *b != b'/' && *b != b'.') {
        tree.file(rel("names/bytes", &[byte]), &[byte]);
    }
    tree.dir("names/dots");
    // A directory holds `.` and `..` at their sorted places: some of these come before, between and behind them.
    for name in ["!", "-", "+x", ",", "...", "..a", "..!", ". ", ".\u{1}", ".hidden", "0", "a"] {
        tree.file(rel("names/dots", name.as_bytes()), name.as_bytes());
    }
    tree.dir("names/lengths");
    for len in [1, 2, 127, 128, 254, 255] {
        tree.file(rel("names/lengths", &vec![b'a'; len]), b"ascii");
        tree.dir(rel("names/lengths", &vec![b'D'; len]));
        tree.symlink(rel("names/lengths", &vec![0xff; len]), "not utf-8");
    }
    tree.file(Path::new("names/lengths").join("€".repeat(85)), b"255 bytes of UTF-8");
    tree.dir("names/alike");
    // They differ in their last bytes only, so a binary search must compare them to the end.
    for i in 0..300 {
        tree.file(Path::new("names/alike").join(format!("{}{i:05}", "s".repeat(250))), b"");
    }
    tree.dir("names/shell");
    for name in [
        "with space",
        "tab\there",
        "new\nline",
        "quote\"s",
        "it's",
        "back\\slash",
        "*",
        "$HOME",
        "-rf",
        "a;b",
        "e\u{301}",
        "é",
    ] {
        tree.file(rel("names/shell", name.as_bytes()), name.as_bytes());
    }
    tree.dir(rel("names", b"\xc3\x28 not utf-8"));
    tree.file(rel("names", b"\xc3\x28 not utf-8/\xa0\xa1"), b"in a directory that is not utf-8 either");
}

fn rel(dir: &str, name: &[u8]) -> PathBuf {
    Path::new(dir).join(OsStr::from_bytes(name))
}
