//! The kernel's mount table, `/proc/self/mountinfo` (proc_pid_mountinfo(5)).
//!
//! Our own reader, since the crates for it leave the octal escapes of paths as they are and give up on a table that
//! holds one name which is not UTF-8.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// What we need of a line of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Number of the mount, its own for as long as it is mounted.
    pub id: u64,
    /// `major:minor` of the file system; every mount of one file system has the same.
    pub device: String,
    /// Where it is mounted.
    pub mountpoint: PathBuf,
    /// Options of the mount.
    pub mount_options: String,
    /// Type of the file system.
    pub fs_type: String,
    /// What was mounted; for FUSE whatever its daemon called itself.
    pub source: Vec<u8>,
    /// Options of the file system.
    pub options: String,
}

/// What is seen at `path`: the last mount on it.
pub(super) fn top<'a>(table: &'a [Entry], path: &std::path::Path) -> Option<&'a Entry> {
    table.iter().rev().find(|e| e.mountpoint == path)
}

/// How often a table that keeps changing is read.
const TRIES: usize = 10;

/// The table of this process's mount namespace, in the order of mounting.
///
/// The kernel hands it out page by page, and a mount made or ended in between can hide a line: a table of more than one
/// page is only one when two readings in a row are equal.
pub fn read() -> io::Result<Vec<Entry>> {
    let (mut table, mut whole) = read_once()?;
    for _ in 0..TRIES {
        if whole {
            break;
        }
        let (again, at_once) = read_once()?;
        whole = at_once || again == table;
        table = again;
    }
    Ok(table.split(|b| *b == b'\n').filter_map(parse).collect())
}

/// The bytes of the table, and whether the kernel gave them at one moment.
fn read_once() -> io::Result<(Vec<u8>, bool)> {
    let mut file = File::open("/proc/self/mountinfo")?;
    let mut table = vec![0; 64 * 1024];
    let first = file.read(&mut table)?;
    table.truncate(first);
    let more = file.read_to_end(&mut table)?;
    Ok((table, more == 0))
}

/// `36 35 98:0 /root /mount/point rw,noatime shared:1 - ext3 /dev/root rw`
fn parse(line: &[u8]) -> Option<Entry> {
    let mut fields = line.split(|b| *b == b' ');
    let id = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
    let device = fields.nth(1)?;
    let mountpoint = fields.nth(1)?;
    let mount_options = fields.next()?;
    fields.find(|field| *field == b"-")?;
    Some(Entry {
        id,
        device: String::from_utf8_lossy(device).into_owned(),
        mountpoint: OsString::from_vec(unescape(mountpoint)).into(),
        mount_options: String::from_utf8_lossy(mount_options).into_owned(),
        fs_type: String::from_utf8_lossy(fields.next()?).into_owned(),
        source: unescape(fields.next()?),
        options: String::from_utf8_lossy(fields.next()?).into_owned(),
    })
}

/// Space, tab, newline and backslash stand as three octal digits behind a backslash.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, tail)) = rest.split_first() {
        let code = tail.get(..3).and_then(|d| std::str::from_utf8(d).ok());
        match code.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(escaped) if byte == b'\\' => {
                plain.push(escaped);
                rest = &tail[3..];
            }
            Some(_) | None => {
                plain.push(byte);
                rest = tail;
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_and_optional_fields_are_understood() {
        let line = b"36 35 98:0 / /mnt/a\\040b\\134c rw,noatime shared:1 master:2 - fuse.flist flist:x rw";
        let entry = parse(line).unwrap();
        assert_eq!(entry.mountpoint, PathBuf::from("/mnt/a b\\c"));
        assert_eq!((entry.id, entry.device.as_str(), entry.fs_type.as_str()), (36, "98:0", "fuse.flist"));
        assert_eq!(
            (entry.source.as_slice(), entry.mount_options.as_str()),
            (b"flist:x".as_slice(), "rw,noatime")
        );
        assert_eq!(parse(b"36 35 98:0 / /mnt rw"), None);
        assert!(read().unwrap().iter().any(|e| e.mountpoint == std::path::Path::new("/")));
    }
}
