//! For tests: a disk that is a file, which is given back at the end.

use std::fs::File;
use std::path::PathBuf;
use std::process::Command;

use super::block::Device;

/// A loop device over a sparse file.
pub struct LoopDevice {
    path: String,
    _folder: tempfile::TempDir,
}

impl LoopDevice {
    /// A disk of zeros.
    pub fn new(size_mib: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("disk");
        File::create(&file).unwrap().set_len(size_mib << 20).unwrap();
        let said = Command::new("losetup").args(["-f", "--show"]).arg(&file).output().unwrap();
        assert!(said.status.success(), "losetup: {}", String::from_utf8_lossy(&said.stderr));
        LoopDevice { path: String::from_utf8(said.stdout).unwrap().trim().to_owned(), _folder: folder }
    }

    /// Its name, as `loop0`.
    pub fn name(&self) -> String {
        self.path.trim_start_matches("/dev/").to_owned()
    }

    /// Its path.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Path of a partition.
    pub fn partition(&self, number: u32) -> PathBuf {
        format!("{}p{number}", self.path).into()
    }

    /// The device.
    pub fn device(&self) -> Device {
        Device::find(&self.name()).unwrap()
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        // A test that fails may leave it mounted, or with partitions.
        let umount = |path: &str| Command::new("umount").arg("-qA").arg(path).output();
        for number in 1..=8 {
            if self.partition(number).exists() {
                let _ = umount(&self.partition(number).display().to_string());
            }
        }
        let _ = umount(&self.path);
        let _ = Command::new("partx").args(["-d", &self.path]).output();
        let detached = Command::new("losetup").args(["-d", &self.path]).output().unwrap();
        if !std::thread::panicking() {
            assert!(detached.status.success(), "{}", String::from_utf8_lossy(&detached.stderr));
        }
    }
}
