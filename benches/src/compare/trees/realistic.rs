//! An endless stream of what real files hold: this machine's programs, one after another.
//!
//! Compressible as programs are, and without two equal stretches as long as /usr has not been read to its end.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::Context;

pub(super) struct Realistic {
    roots: Vec<PathBuf>,
    /// What is still to be read, the next one last.
    pending: Vec<PathBuf>,
    file: Option<File>,
    /// Files with several names are read once.
    seen: BTreeSet<(u64, u64)>,
}

impl Realistic {
    /// The folders of /usr in this order; those that are not there are skipped.
    pub(super) fn of(folders: &[&str]) -> Realistic {
        let roots: Vec<PathBuf> = folders.iter().rev().map(|f| Path::new("/usr").join(f)).collect();
        Realistic { roots, pending: Vec::new(), file: None, seen: BTreeSet::new() }
    }

    /// Fills the whole buffer.
    pub(super) fn fill(&mut self, buffer: &mut [u8]) -> anyhow::Result<()> {
        let mut filled = 0;
        while filled < buffer.len() {
            let Some(file) = &mut self.file else {
                self.file = Some(self.open_next()?);
                continue;
            };
            match file.read(&mut buffer[filled..])? {
                0 => self.file = None,
                n => filled += n,
            }
        }
        Ok(())
    }

    fn open_next(&mut self) -> anyhow::Result<File> {
        let mut restarted = false;
        loop {
            let Some(path) = self.pending.pop() else {
                anyhow::ensure!(!restarted, "no files in {:?}", self.roots);
                restarted = true;
                self.seen.clear();
                self.pending = self.roots.clone();
                continue;
            };
            let Ok(meta) = fs::symlink_metadata(&path) else { continue };
            if meta.is_dir() {
                let mut names = Vec::new();
                for entry in fs::read_dir(&path).with_context(|| path.display().to_string())? {
                    names.push(entry?.path());
                }
                names.sort_unstable_by(|a, b| b.cmp(a));
                self.pending.append(&mut names);
            } else if meta.is_file() && meta.len() > 0 && self.seen.insert((meta.dev(), meta.ino())) {
                return File::open(&path).with_context(|| path.display().to_string());
            }
        }
    }
}
