//! The folder of a run: trees, images, caches and mountpoints. It goes with the run, and so does what is mounted in it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use rustix::mount::{UnmountFlags, unmount};
use tempfile::TempDir;

/// On the disk: /tmp may be memory, and the rivals' caches need a file system with all features.
const BELOW: &str = "/var/tmp";

pub(super) struct Work {
    folder: TempDir,
}

impl Work {
    pub(super) fn new(keep: bool) -> anyhow::Result<Work> {
        let mut folder = tempfile::Builder::new().prefix("g8os-bench-").tempdir_in(BELOW)?;
        folder.disable_cleanup(keep);
        if keep {
            eprintln!("work folder: {}", folder.path().display());
        }
        Ok(Work { folder })
    }

    pub(super) fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

impl Drop for Work {
    /// Every session unmounts for itself; what is found here was left by one that failed half-way.
    fn drop(&mut self) {
        for place in mounted_below(self.folder.path()) {
            eprintln!("unmounting {}", place.display());
            if let Err(error) = unmount(&place, UnmountFlags::DETACH) {
                eprintln!("{}: {error}", place.display());
            }
        }
    }
}

/// The latest first. Our paths hold nothing that the table would escape.
fn mounted_below(folder: &Path) -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let places = table.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
    let mut below: Vec<PathBuf> = places.filter(|place| place.starts_with(folder)).collect();
    below.reverse();
    below
}

/// Removes a file or folder, if it is there.
pub(super) fn remove(path: &Path) -> anyhow::Result<()> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e).context(path.display().to_string()),
        _ => Ok(()),
    }
}

/// Bytes of all files below a folder: as their lengths say, and as they take room on the disk.
pub(super) fn bytes_below(folder: &Path) -> anyhow::Result<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    let (mut length, mut disk) = (0, 0);
    let mut pending = vec![folder.to_owned()];
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(&dir).with_context(|| dir.display().to_string())? {
            let entry = entry?;
            // A cache may drop files while it is counted.
            let Ok(meta) = entry.metadata() else { continue };
            if meta.is_dir() {
                pending.push(entry.path());
            } else {
                length += meta.len();
                disk += meta.blocks() * 512;
            }
        }
    }
    Ok((length, disk))
}
