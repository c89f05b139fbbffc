//! The kernel's list of mounts, for leak checks. Tests share the machine, so they ask only about their own directories.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// One line of `/proc/self/mountinfo`.
#[derive(Debug, Clone)]
pub struct Mount {
    /// Where it is mounted.
    pub mountpoint: PathBuf,
    /// Options of the mount, comma separated.
    pub options: String,
    /// Kind of filesystem, with its subtype.
    pub kind: String,
    /// What is mounted.
    pub source: String,
    /// Options of the superblock, comma separated.
    pub super_options: String,
}

/// All mounts at or below `dir`, in mount order.
pub fn under(dir: &Path) -> Vec<Mount> {
    all().into_iter().filter(|m| m.mountpoint.starts_with(dir)).collect()
}

/// The topmost mount exactly at `dir`.
pub fn at(dir: &Path) -> Option<Mount> {
    all().into_iter().rev().find(|m| m.mountpoint == dir)
}

/// Panics if anything is mounted at or below `dir`.
pub fn assert_none_under(dir: &Path) {
    let left = under(dir);
    assert!(left.is_empty(), "mounts left below {}: {left:#?}", dir.display());
}

/// The kernel hands the table out page by page; only two equal readings in a row are one table.
fn all() -> Vec<Mount> {
    let read = || std::fs::read("/proc/self/mountinfo").expect("the kernel lists its mounts");
    let mut text = read();
    for _ in 0..50 {
        let again = read();
        if again == text {
            break;
        }
        text = again;
    }
    text.split(|b| *b == b'\n').filter_map(parse).collect()
}

/// `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue` (proc(5)).
fn parse(line: &[u8]) -> Option<Mount> {
    let fields: Vec<&[u8]> = line.split(|b| *b == b' ').collect();
    let dash = fields.iter().position(|f| *f == b"-")?;
    let text = |i: usize| fields.get(i).map(|f| String::from_utf8_lossy(&unescape(f)).into_owned());
    Some(Mount {
        mountpoint: PathBuf::from(OsString::from_vec(unescape(fields.get(4)?))),
        options: text(5)?,
        kind: text(dash + 1)?,
        source: text(dash + 2)?,
        super_options: text(dash + 3)?,
    })
}

/// Undoes the octal escapes of space, tab, newline and backslash.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut i = 0;
    while i < field.len() {
        let digits = field.get(i + 1..i + 4).and_then(|d| std::str::from_utf8(d).ok());
        match digits.and_then(|d| u8::from_str_radix(d, 8).ok()) {
            Some(byte) if field[i] == b'\\' => {
                out.push(byte);
                i += 4;
            }
            _ => {
                out.push(field[i]);
                i += 1;
            }
        }
    }
    out
}
