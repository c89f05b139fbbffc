//! Mounts that no other process sees: for tests that stop daemons, which every `flist mounts` of the machine would ask.

use std::path::Path;

use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_change, unmount};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use crate::mount_table;

/// Gives this thread, and the threads and processes that it starts, a mount namespace of their own. It ends with them.
pub fn own_mounts() {
    // SAFETY: with NEWNS the thread stops sharing its root and working directory; descriptors stay shared.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.expect("root may have a mount namespace");
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private).expect("the mounts of a new namespace are ours");
    // The copies of what other tests have mounted would keep their daemons alive. What is mounted last lies on top.
    let is_served = |kind: &str| matches!(kind, "fuse.flist" | "fuse.flist-devices" | "erofs");
    for mount in mount_table::under(Path::new("/")).iter().rev().filter(|mount| is_served(&mount.kind)) {
        // Its place may be gone since, and then its mount went with it.
        let _ = unmount(&mount.mountpoint, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW);
    }
}
