//! The standard streams of `run`, lent to the container's user: only so can it open `/dev/stdout` or its terminal anew.
//!
//! Only pipes, which are gone with their ends, and terminals, which are given back. Files stay with their owners.

use std::os::fd::BorrowedFd;

use rustix::fs::{FileType, Gid, Uid, fchown, fstat};
use rustix::termios::isatty;

use crate::syscall::{STDERR, STDIN, STDOUT};

/// What is lent, until it is dropped.
pub(crate) struct Lent([Option<(BorrowedFd<'static>, Uid, Gid)>; 3]);

impl Lent {
    /// Lends what can be lent to this user of the host.
    pub(crate) fn to(uid: u32) -> Self {
        Lent([STDIN, STDOUT, STDERR].map(|stream| {
            let before = fstat(stream).ok()?;
            let lendable = FileType::from_raw_mode(before.st_mode) == FileType::Fifo || isatty(stream);
            // Refused where a file system has no owners; then it is opened as well as before.
            (lendable && fchown(stream, Some(Uid::from_raw(uid)), None).is_ok())
                .then(|| (stream, Uid::from_raw(before.st_uid), Gid::from_raw(before.st_gid)))
        }))
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        // In reverse: the same terminal on two streams had its first owner before the first change.
        for (stream, uid, gid) in self.0.iter().rev().flatten() {
            let _ = fchown(stream, Some(*uid), Some(*gid));
        }
    }
}
