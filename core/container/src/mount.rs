//! Mounts on descriptors: what is mounted and where are opened first, so no path is looked up twice.
//!
//! With the descriptor-based mount API a mount has all its flags before anybody can see it, and the place it
//! goes to is the one that was checked. Paths inside the image are opened by [`locate`], which follows no
//! symlink.

use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, mkdirat, openat2};
use rustix::io::{Errno, Result};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};

use super::syscall;

pub(super) const READ_ONLY: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_RDONLY;
pub(super) const NO_SETUID: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOSUID;
pub(super) const NO_DEVICES: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NODEV;
/// For what holds data only: no setuid, no devices, no programs.
pub(super) const DATA_ONLY: MountAttrFlags =
    NO_SETUID.union(NO_DEVICES).union(MountAttrFlags::MOUNT_ATTR_NOEXEC);

/// A new file system of type `kind`, not yet attached anywhere.
pub(super) fn create(
    kind: &CStr,
    options: &[(&CStr, &CStr)],
    switches: &[&CStr],
    attributes: MountAttrFlags,
) -> Result<OwnedFd> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in options {
        fsconfig_set_string(&context, *key, *value)?;
    }
    for switch in switches {
        fsconfig_set_flag(&context, *switch)?;
    }
    fsconfig_create(&context)?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// A second mount of what `path` shows below `at`, with more attributes and without the mounts in it.
pub(super) fn copy(at: impl AsFd, path: &CStr, attributes: MountAttrFlags) -> Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::AT_EMPTY_PATH
        | OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
    let mount = open_tree(at, path, flags)?;
    syscall::set_copy_apart(&mount, attributes.bits().into())?;
    Ok(mount)
}

/// The same for a path of the host.
pub(super) fn copy_of_host(path: &CStr, attributes: MountAttrFlags) -> Result<OwnedFd> {
    copy(CWD, path, attributes)
}

/// Puts a mount on the opened `place`.
pub(super) fn attach(mount: impl AsFd, place: impl AsFd) -> Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, c"", place, c"", flags)
}

/// Opens a path below `root` as a place to mount on. A symlink anywhere in it is an error (ELOOP): an image
/// has no reason to redirect what we mount, and a redirected `/proc` would escape its masks.
pub(super) fn locate(root: impl AsFd, path: &CStr) -> Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    // Without NOFOLLOW, which would return a final symlink rather than refuse it.
    openat2(root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve)
}

/// The directory `name` in `parent`, made when missing.
pub(super) fn directory(parent: impl AsFd, name: &CStr) -> Result<OwnedFd> {
    match mkdirat(&parent, name, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => locate(parent, name),
        Err(errno) => Err(errno),
    }
}
