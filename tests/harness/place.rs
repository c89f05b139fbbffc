//! A private directory on a real disk for one test, without mounts or files left behind.
//!
//! It lies in `/var/tmp` (`G8_TESTS_DIR` overrides): a temporary directory in memory refuses `user.` attributes on some
//! kernels and cannot back an EROFS mount.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::mount::{UnmountFlags, unmount};

use crate::mount_table;

/// The directory. Dropping it detaches every mount below it, then removes it.
pub struct Place(tempfile::TempDir);

impl Place {
    /// A fresh directory that other users may enter. Panics unless root, because all these tests mount.
    pub fn new() -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "the integration tests mount filesystems and make devices: run them as root"
        );
        let base = std::env::var_os("G8_TESTS_DIR").map_or_else(|| PathBuf::from("/var/tmp"), PathBuf::from);
        let dir = tempfile::Builder::new()
            .prefix("g8os-tests-")
            .tempdir_in(&base)
            .unwrap_or_else(|e| panic!("no temporary directory in {}: {e}", base.display()));
        std::fs::set_permissions(dir.path(), Permissions::from_mode(0o755))
            .expect("chmod of our own directory");
        Self(dir)
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// The path of `name` in it.
    pub fn join(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Makes the empty directory `name` and returns its path.
    pub fn dir(&self, name: &str) -> PathBuf {
        let path = self.join(name);
        std::fs::create_dir_all(&path).unwrap_or_else(|e| panic!("mkdir {}: {e}", path.display()));
        path
    }
}

impl Default for Place {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for mount in mount_table::under(self.path()).iter().rev() {
            let _ = unmount(&mount.mountpoint, UnmountFlags::DETACH);
        }
    }
}
