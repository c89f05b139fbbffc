//! A tmpfs of a given size: another filesystem to copy trees to, and a disk that is soon full.

use std::ffi::CString;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, UnmountFlags, mount, mount_remount, unmount};

/// A mounted tmpfs; dropping it unmounts.
pub struct Tmpfs(PathBuf);

impl Tmpfs {
    /// Mounts one of at most `size_mib` MiB on the existing directory `dir`.
    pub fn mount(dir: &Path, size_mib: u32) -> Self {
        mount("g8os-tests", dir, "tmpfs", MountFlags::NOSUID, Some(options(size_mib).as_c_str()))
            .unwrap_or_else(|e| panic!("mount tmpfs on {}: {e}", dir.display()));
        Self(dir.to_owned())
    }

    /// Its root.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Changes its size.
    pub fn resize(&self, size_mib: u32) {
        mount_remount(&self.0, MountFlags::NOSUID, options(size_mib).as_c_str())
            .unwrap_or_else(|e| panic!("remount {}: {e}", self.0.display()));
    }
}

fn options(size_mib: u32) -> CString {
    CString::new(format!("size={size_mib}m,mode=755")).expect("digits hold no NUL")
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = unmount(&self.0, UnmountFlags::DETACH);
    }
}
