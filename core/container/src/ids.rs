//! The user ids of a container: 65,536 of the host's that nobody else has, shown inside as 0 to 65,535.
//!
//! A range is held by a lock on one byte of a file that all who make containers on this machine share. The kernel lets
//! go of it when the holder closes the file, however it ends: no range is ever lost, and none is used twice.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};

use rustix::io::Errno;
use rustix::process::Pid;

use crate::syscall::{lock_byte, map_mount_ids};
use crate::{ContainerError, at};

/// How many ids a container has.
pub(crate) const COUNT: u32 = 1 << 16;
/// Ranges begin at multiples of [`COUNT`], here and up: above what `/etc/subuid` gives to people (systemd takes its own
/// from the same place and asks `nss` first; we are in no user database).
const FIRST: u32 = 0x3000;
/// Up to 0x6fff_ffff, the last that tools with signed ids can show.
const RANGES: u32 = 0x4000;
/// The folder of the file, on a file system that ends with the machine.
const FOLDER: &str = "/run/g8os";
const FILE: &str = "/run/g8os/user-ranges";

/// A range that is ours until it is dropped.
#[derive(Debug)]
pub(crate) struct Range {
    /// What the container's root is out here.
    pub(crate) first: u32,
    _lock: File,
}

impl Range {
    /// Takes one that is free.
    pub(crate) fn take() -> Result<Self, ContainerError> {
        let failed = |source| ContainerError::Step { step: "take a range of user ids", source };
        let file = open().map_err(failed)?;
        // Whoever begins elsewhere finds a free one at once.
        let begin = std::process::id().wrapping_mul(0x9e37_79b1) % RANGES;
        for number in (begin..RANGES).chain(0..begin) {
            match lock_byte(&file, number.into()) {
                Ok(()) => return Ok(Range { first: (FIRST + number) * COUNT, _lock: file }),
                Err(Errno::AGAIN | Errno::ACCESS) => {}
                Err(errno) => return Err(failed(errno.into())),
            }
        }
        Err(failed(io::Error::other("all are in use")))
    }

    /// Gives the range to the user namespace of a process, and returns that namespace.
    pub(crate) fn give_to(&self, pid: Pid) -> Result<OwnedFd, ContainerError> {
        let folder = format!("/proc/{}", pid.as_raw_pid());
        let map = format!("0 {} {COUNT}\n", self.first);
        let write = |name: &str| {
            // One write: the kernel takes a map once and whole.
            OpenOptions::new().write(true).open(format!("{folder}/{name}"))?.write_all(map.as_bytes())
        };
        let mapped = write("uid_map").and_then(|()| write("gid_map"));
        mapped.map_err(|source| ContainerError::Step { step: "map the user ids", source })?;
        let namespace = File::open(format!("{folder}/ns/user"));
        let namespace =
            namespace.map_err(|source| ContainerError::Step { step: "open the user namespace", source })?;
        Ok(namespace.into())
    }
}

/// Each range has an open file of its own, as the lock belongs to that.
fn open() -> io::Result<File> {
    match DirBuilder::new().mode(0o700).create(FOLDER) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
        _ => {}
    }
    let mut file = OpenOptions::new();
    file.create(true).truncate(false).write(true).mode(0o600).custom_flags(libc::O_NOFOLLOW).open(FILE)
}

/// Shows the ids of a mount as this user namespace has them: what belongs to 0 on disk belongs to the container's root.
pub(crate) fn map_mount(mount: impl AsFd, users: &OwnedFd, step: &'static str) -> Result<(), ContainerError> {
    map_mount_ids(mount, users).map_err(at(step))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_are_held_differ_and_lie_where_they_should() {
        let held: Vec<Range> = (0..32).map(|_| Range::take().expect("a range")).collect();
        let mut firsts: Vec<u32> = held.iter().map(|range| range.first).collect();
        firsts.sort_unstable();
        firsts.dedup();
        assert_eq!(firsts.len(), held.len());
        assert!(firsts.iter().all(|first| first % COUNT == 0 && (0x3000_0000..0x7000_0000).contains(first)));
    }
}
