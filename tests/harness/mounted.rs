//! A mount that cannot be forgotten: dropping it unmounts, by force if need be.

use std::path::{Path, PathBuf};

use rustix::mount::{UnmountFlags, unmount};

use crate::Mode;
use crate::args;
use crate::flist::Flist;
use crate::mount_table;
use crate::process::Outcome;
use crate::status::MountStatus;

/// A mounted flist.
pub struct Mounted<'f> {
    flist: &'f Flist,
    dir: PathBuf,
    pid: i32,
    mode: Mode,
}

impl<'f> Mounted<'f> {
    /// Takes over what was just mounted on `dir`; panics when nothing is.
    #[track_caller]
    pub(crate) fn new(flist: &'f Flist, dir: PathBuf) -> Self {
        let Some(shown) = mount_table::at(&dir) else {
            panic!("`flist mount` succeeded without a mount on {}", dir.display());
        };
        let mut mounted = Self { flist, dir, pid: 0, mode: Mode::Fuse };
        let status = mounted.status();
        (mounted.pid, mounted.mode) = (status.pid, status.mode);
        assert_eq!(shown.kind, status.mode.kind(), "`flist mounts` and the mount table disagree");
        mounted
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// The path of `rel` in it.
    pub fn join(&self, rel: impl AsRef<Path>) -> PathBuf {
        self.dir.join(rel)
    }

    /// The daemon that served it when it was mounted.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// How it reaches the kernel.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// What `flist mounts --json` says about it.
    #[track_caller]
    pub fn status(&self) -> MountStatus {
        let all = self.flist.mounts();
        let found = all.iter().find(|m| m.mountpoint == self.dir).cloned();
        found.unwrap_or_else(|| panic!("`flist mounts` does not list {}: {all:#?}", self.dir.display()))
    }

    /// Unmounts with `flist umount`, which must succeed and leave nothing.
    #[track_caller]
    pub fn umount(self) {
        self.try_umount().ok();
        mount_table::assert_none_under(&self.dir);
    }

    /// Runs `flist umount` and returns what it did.
    #[track_caller]
    pub fn try_umount(&self) -> Outcome {
        self.flist.run(args!["umount", self.dir])
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        if mount_table::at(&self.dir).is_none() {
            return;
        }
        // `flist umount` is what is tested elsewhere; here only its effect counts, and it must not panic twice.
        let _ = self.flist.command(args!["umount", self.dir]).output();
        while mount_table::at(&self.dir).is_some() {
            if unmount(&self.dir, UnmountFlags::DETACH).is_err() {
                break;
            }
        }
    }
}
