//! FUSE connections: which ones a daemon holds, whether one is still there, and how it is ended from outside.
//!
//! In mode fuse the connection's number is the minor of the mount's device; below mode kernel it belongs to a private mount
//! that no path leads to, so it is read from the daemon's descriptors. Numbers are given out again at once, and
//! other tests mount too: a connection is the same only with the same inode of its directory in fusectl, which the
//! kernel keeps for as long as fusectl is mounted anywhere.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::Place;

/// A mounted fusectl; dropping it unmounts.
pub struct Connections(PathBuf);

/// One connection, also after its number belongs to another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Connection {
    number: u32,
    inode: u64,
}

impl Connections {
    /// Mounts fusectl in `place`.
    pub fn new(place: &Place) -> Self {
        let dir = place.dir("connections");
        mount("none", &dir, "fusectl", MountFlags::empty(), None).expect("the kernel has fusectl");
        Self(dir)
    }

    /// Those that process `pid` serves. A number may be given to another connection between two looks, so what is there
    /// has to be the same before and after the daemon says its numbers, and the daemon has to say them again.
    pub fn of(&self, pid: i32) -> BTreeSet<Connection> {
        let (before, said, after) = (self.all(), numbers_of(pid), self.all());
        let still = numbers_of(pid);
        let is_sure = |number: &u32| still.contains(number) && before.get(number) == after.get(number);
        let sure = said.into_iter().filter(is_sure);
        sure.filter_map(|number| Some(Connection { number, inode: *after.get(&number)? })).collect()
    }

    /// The one and only that process `pid` serves.
    #[track_caller]
    pub fn only_of(&self, pid: i32) -> Connection {
        let all = self.of(pid);
        assert_eq!(all.len(), 1, "process {pid} serves {all:?}");
        *all.first().expect("just counted")
    }

    /// Whether it is still there.
    pub fn has(&self, connection: Connection) -> bool {
        self.inode(connection.number) == Some(connection.inode)
    }

    /// Ends all its requests, now and for ever.
    #[track_caller]
    pub fn abort(&self, connection: Connection) {
        assert!(self.has(connection), "{connection:?} is gone");
        fs::write(self.0.join(format!("{}/abort", connection.number)), "1").expect("fusectl aborts");
    }

    /// Requests that nobody has answered yet.
    pub fn waiting(&self, connection: Connection) -> u64 {
        let text = fs::read_to_string(self.0.join(format!("{}/waiting", connection.number)));
        text.map_or(0, |text| text.trim().parse().expect("the kernel counts in digits"))
    }

    /// The inode of every connection there is.
    fn all(&self) -> BTreeMap<u32, u64> {
        let entries = fs::read_dir(&self.0).expect("fusectl lists its connections").flatten();
        let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        numbers.filter_map(|number| Some((number, self.inode(number)?))).collect()
    }

    fn inode(&self, number: u32) -> Option<u64> {
        fs::metadata(self.0.join(number.to_string())).ok().map(|m| m.ino())
    }
}

/// The numbers in the descriptors of process `pid`.
fn numbers_of(pid: i32) -> BTreeSet<u32> {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fdinfo")).into_iter().flatten().flatten();
    let number =
        |info: String| info.lines().find_map(|l| l.strip_prefix("fuse_connection:")?.trim().parse().ok());
    descriptors.filter_map(|d| fs::read_to_string(d.path()).ok()).filter_map(number).collect()
}

impl Drop for Connections {
    fn drop(&mut self) {
        let _ = unmount(&self.0, UnmountFlags::DETACH);
    }
}
