//! Mounts that no other process sees: for tests that stop daemons, which every `flist mounts` of the machine would ask.

use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// Gives this thread, and the threads and processes that it starts, a mount namespace of their own. It ends with them.
pub fn own_mounts() {
    // SAFETY: with NEWNS the thread stops sharing its root and working directory; descriptors stay shared.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.expect("root may have a mount namespace");
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private).expect("the mounts of a new namespace are ours");
}
