//! Walks a tree by directory descriptors, so that paths longer than PATH_MAX (4,096 bytes) are no limit.

use std::ffi::OsStr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, openat, statat};
use rustix::io;

/// One entry on the way. The root itself comes first, under the name `.`.
pub struct Visit<'a> {
    /// The directory the entry lies in.
    pub dir: &'a OwnedFd,
    /// Its name there.
    pub name: &'a OsStr,
    /// Its path from the root of the walk; empty for the root.
    pub rel: PathBuf,
    /// What lstat says.
    pub stat: Stat,
}

/// Calls `see` for every entry at and below `root`, a directory always before what is in it.
pub fn walk(root: &Path, see: &mut dyn FnMut(&Visit<'_>)) -> io::Result<()> {
    let top = Rc::new(open_dir(CWD, root.as_os_str())?);
    let stat = statat(&*top, ".", AtFlags::empty())?;
    see(&Visit { dir: &top, name: OsStr::new("."), rel: PathBuf::new(), stat });
    let mut todo = vec![(top, OsStr::new(".").to_owned(), PathBuf::new())];
    while let Some((parent, name, rel)) = todo.pop() {
        let dir = Rc::new(open_dir(&*parent, &name)?);
        for (name, _) in list(&dir)? {
            let stat = statat(&*dir, name.as_os_str(), AtFlags::SYMLINK_NOFOLLOW)?;
            let rel = rel.join(&name);
            see(&Visit { dir: &dir, name: &name, rel: rel.clone(), stat });
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                todo.push((Rc::clone(&dir), name, rel));
            }
        }
    }
    Ok(())
}

/// Opens a directory for listing; never follows a symlink.
pub fn open_dir(at: impl std::os::fd::AsFd, name: &OsStr) -> io::Result<OwnedFd> {
    openat(at, name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

/// Names and kinds in `dir`, sorted by bytes, without `.` and `..`.
pub fn list(dir: &OwnedFd) -> io::Result<Vec<(std::ffi::OsString, FileType)>> {
    let mut out = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name != "." && name != ".." {
            out.push((name.to_owned(), entry.file_type()));
        }
    }
    out.sort_by(|a: &(std::ffi::OsString, _), b| a.0.cmp(&b.0));
    Ok(out)
}

/// A path of bounded length to `name` in `dir`, for calls that have no `*at` form (xattrs).
pub fn short_path(dir: &OwnedFd, name: &OsStr) -> PathBuf {
    Path::new("/proc/self/fd").join(dir.as_raw_fd().to_string()).join(name)
}
