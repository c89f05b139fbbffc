//! The mount table of this process, from /proc/self/mountinfo (proc_pid_mountinfo(5)).

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use super::text;

/// Where the kernel lists the mounts.
pub const PATH: &str = "/proc/self/mountinfo";

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Number of the device, `major:minor`; a made-up one for btrfs and the like.
    pub device: String,
    /// What is mounted.
    pub source: String,
    /// Where.
    pub target: PathBuf,
    /// Type of the file system.
    pub fstype: String,
    /// Options of this mount, joined by commas.
    pub options: String,
}

/// All mounts, in the order they were made.
pub fn mounts() -> io::Result<Vec<Mount>> {
    Ok(parse(&text::read(PATH)?))
}

/// The first mount at or below a path.
pub fn at_or_below(path: &Path) -> io::Result<Option<Mount>> {
    Ok(mounts()?.into_iter().find(|m| m.target.starts_with(path)))
}

fn parse(text: &str) -> Vec<Mount> {
    text.lines().filter_map(parse_line).collect()
}

/// `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue`
fn parse_line(line: &str) -> Option<Mount> {
    let (left, right) = line.split_once(" - ")?;
    let mut left = left.split(' ').skip(2);
    let (device, _root, target, options) = (left.next()?, left.next()?, left.next()?, left.next()?);
    let mut right = right.split(' ');
    let (fstype, source) = (right.next()?, right.next()?);
    Some(Mount {
        device: device.to_owned(),
        source: unescape(source).to_string_lossy().into_owned(),
        target: unescape(target).into(),
        fstype: fstype.to_owned(),
        options: options.to_owned(),
    })
}

/// Blanks, line ends and backslashes are written as three octal digits.
fn unescape(field: &str) -> OsString {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let octal = after.get(..3).and_then(|d| u8::from_str_radix(std::str::from_utf8(d).ok()?, 8).ok());
        match octal {
            Some(decoded) if byte == b'\\' => {
                bytes.push(decoded);
                rest = &after[3..];
            }
            Some(_) | None => {
                bytes.push(byte);
                rest = after;
            }
        }
    }
    OsString::from_vec(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_as_the_manual_has_it() {
        let mount =
            parse_line("36 35 98:0 /mnt1 /a\\040b rw,noatime master:1 - ext3 /dev/root rw,errors=continue");
        let expected = Mount {
            device: "98:0".into(),
            source: "/dev/root".into(),
            target: "/a b".into(),
            fstype: "ext3".into(),
            options: "rw,noatime".into(),
        };
        assert_eq!(mount, Some(expected));
    }

    #[test]
    fn optional_fields_may_be_missing_and_many() {
        assert!(parse_line("36 35 98:0 / /a rw - ext3 none rw").is_some());
        assert!(parse_line("36 35 98:0 / /a rw shared:1 master:2 propagate_from:3 - ext3 none rw").is_some());
        assert_eq!(parse_line("36 35 98:0 /"), None);
    }

    #[test]
    fn a_backslash_without_three_digits_stays() {
        assert_eq!(unescape("a\\9 \\134 \\"), "a\\9 \\ \\");
    }

    #[test]
    fn the_root_is_mounted() {
        assert!(at_or_below(Path::new("/proc")).unwrap().is_some());
        assert_eq!(at_or_below(Path::new("/no/such/place")).unwrap(), None);
    }
}
