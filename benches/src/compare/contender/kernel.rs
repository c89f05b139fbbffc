//! File systems that the kernel reads from an image by itself.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use rustix::mount::{UnmountFlags, unmount};

use super::Mount;

/// Whether the kernel has the file system that a contender's name begins with.
pub(super) fn knows(contender: &str) -> bool {
    let kind = contender.split(' ').next().unwrap_or_default();
    let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    known.lines().any(|line| line.split_whitespace().last() == Some(kind))
}

/// A mount without a daemon; unmounted on drop.
pub(super) struct KernelMount {
    place: PathBuf,
    ended: bool,
}

impl KernelMount {
    /// What has just been mounted there.
    pub(super) fn of(place: &Path) -> KernelMount {
        KernelMount { place: place.to_owned(), ended: false }
    }
}

impl Mount for KernelMount {
    fn place(&self) -> &Path {
        &self.place
    }

    fn end(&mut self) -> anyhow::Result<()> {
        if std::mem::replace(&mut self.ended, true) {
            return Ok(());
        }
        unmount(&self.place, UnmountFlags::empty()).context("unmounting")
    }
}

impl Drop for KernelMount {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("{}: {error:#}", self.place.display());
        }
    }
}
