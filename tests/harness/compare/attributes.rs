//! All of an entry but its contents.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;

use rustix::fs::{FileType, Stat, lgetxattr, llistxattr, major, minor, readlinkat};
use rustix::io;

use crate::walk::short_path;

/// An entry of one of the two trees.
pub(super) struct Side<'a> {
    pub dir: &'a OwnedFd,
    pub name: &'a OsStr,
    pub stat: Stat,
}

impl Side<'_> {
    pub(super) fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }
}

/// In what `a` and `b` differ, each as one sentence.
pub(super) fn differences(a: &Side<'_>, b: &Side<'_>) -> Vec<String> {
    let mut found = Vec::new();
    let mut check = |what: &str, x: String, y: String| {
        if x != y {
            found.push(format!("{what} {x} != {y}"));
        }
    };
    let (s, t) = (&a.stat, &b.stat);
    check("mode", format!("{:o}", s.st_mode), format!("{:o}", t.st_mode));
    check("uid", s.st_uid.to_string(), t.st_uid.to_string());
    check("gid", s.st_gid.to_string(), t.st_gid.to_string());
    let time = |s: &Stat| format!("{}s+{}ns", s.st_mtime, s.st_mtime_nsec);
    check("mtime", time(s), time(t));
    if a.kind() != b.kind() {
        return found;
    }
    if a.kind() != FileType::Directory {
        check("link count", s.st_nlink.to_string(), t.st_nlink.to_string());
    }
    if matches!(a.kind(), FileType::RegularFile | FileType::Symlink) {
        check("size", s.st_size.to_string(), t.st_size.to_string());
    }
    if matches!(a.kind(), FileType::CharacterDevice | FileType::BlockDevice) {
        let device = |s: &Stat| format!("{}:{}", major(s.st_rdev), minor(s.st_rdev));
        check("device", device(s), device(t));
    }
    if a.kind() == FileType::Symlink {
        let target = |s: &Side<'_>| format!("{:?}", readlinkat(s.dir, s.name, Vec::new()));
        check("target", target(a), target(b));
    }
    let (x, y) = (xattrs(a), xattrs(b));
    if x != y {
        found.push(describe(x, y));
    }
    found
}

type Xattrs = BTreeMap<OsString, Vec<u8>>;

fn xattrs(side: &Side<'_>) -> io::Result<Xattrs> {
    let path = short_path(side.dir, side.name);
    let mut names = vec![0; 65_536];
    let len = match llistxattr(&path, &mut names[..]) {
        Ok(len) => len,
        // A filesystem that serves none says so.
        Err(io::Errno::NOTSUP) => 0,
        Err(e) => return Err(e),
    };
    let mut out = Xattrs::new();
    for name in names[..len].split(|b| *b == 0).filter(|n| !n.is_empty() && *n != b"security.selinux") {
        let mut value = vec![0; 65_536];
        let len = lgetxattr(&path, name, &mut value[..])?;
        value.truncate(len);
        out.insert(OsString::from_vec(name.to_vec()), value);
    }
    Ok(out)
}

fn describe(a: io::Result<Xattrs>, b: io::Result<Xattrs>) -> String {
    let (Ok(a), Ok(b)) = (&a, &b) else { return format!("extended attributes {a:?} != {b:?}") };
    let name = a.keys().chain(b.keys()).find(|name| a.get(*name) != b.get(*name));
    let Some(name) = name else { return "extended attributes".to_owned() };
    let value = |map: &Xattrs| map.get(name).map(|v| v[..v.len().min(60)].escape_ascii().to_string());
    format!("extended attribute {name:?} {:?} != {:?}", value(a), value(b))
}
