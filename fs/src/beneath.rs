//! Opening files below a directory without ever leaving it: no symlink is followed, no `..` climbs out, and paths may
//! be longer than the kernel takes at once.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};

/// Longest part of a path given to the kernel at once; `PATH_MAX` is 4,096 with its terminator.
const MAX_STEP: usize = 4000;

/// Opens `path`, relative and without empty components, below `root`; an empty path is `root` itself.
pub(crate) fn open(root: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let mut base: Option<OwnedFd> = None;
    let mut rest = path;
    while rest.len() > MAX_STEP {
        let cut = rest[..MAX_STEP].iter().rposition(|b| *b == b'/').ok_or(rustix::io::Errno::NAMETOOLONG)?;
        let at = base.as_ref().map_or(root, |fd| fd.as_fd());
        let step = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        base = Some(openat2(at, &rest[..cut], step, Mode::empty(), resolve)?);
        rest = &rest[cut + 1..];
    }
    let at = base.as_ref().map_or(root, |fd| fd.as_fd());
    let last = if rest.is_empty() { b"." } else { rest };
    Ok(openat2(at, last, flags | OFlags::CLOEXEC, Mode::empty(), resolve)?)
}

/// `dir/name`, or just `name` in the root.
pub(crate) fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    if dir.is_empty() { name.to_vec() } else { [dir, b"/", name].concat() }
}
