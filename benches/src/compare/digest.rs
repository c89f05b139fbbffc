//! The digest of a whole tree, so that every contender is known to serve what was packed.
//!
//! Counted are names, kinds, permissions, owners, times in whole seconds (squashfs has no finer ones), targets of
//! symbolic links, device numbers and contents. The root counts by what is in it: nydus gives it attributes of its own.

use std::fs::{self, File, Metadata};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use blake3::{Hash, Hasher};

use crate::stop;

/// Digest of everything below `root`.
pub(super) fn tree(root: &Path) -> anyhow::Result<Hash> {
    let mut all = Hasher::new();
    for entry in Entries::new(root) {
        let (path, digest) = entry?;
        all.update(path.as_os_str().as_bytes()).update(b"\0").update(digest.as_bytes());
    }
    Ok(all.finalize())
}

/// The first path in which two trees differ.
pub(super) fn difference(one: &Path, other: &Path) -> anyhow::Result<Option<PathBuf>> {
    let (mut ones, mut others) = (Entries::new(one), Entries::new(other));
    loop {
        match (ones.next().transpose()?, others.next().transpose()?) {
            (None, None) => return Ok(None),
            (Some(a), Some(b)) if a == b => {}
            (Some((path, _)), _) | (None, Some((path, _))) => return Ok(Some(path)),
        }
    }
}

/// All entries in a fixed order, each with its digest.
struct Entries {
    root: PathBuf,
    pending: Vec<PathBuf>,
    buffer: Vec<u8>,
}

impl Entries {
    fn new(root: &Path) -> Entries {
        Entries { root: root.to_owned(), pending: vec![PathBuf::new()], buffer: vec![0; 1 << 20] }
    }

    fn digest(&mut self, path: &Path) -> anyhow::Result<Hash> {
        stop::check()?;
        let full = self.root.join(path);
        let meta = fs::symlink_metadata(&full)?;
        let is_root = path.as_os_str().is_empty();
        let mut hasher = if is_root { Hasher::new() } else { attributes(&meta) };
        let kind = meta.file_type();
        if kind.is_dir() {
            self.descend(path, &full)?;
        } else if kind.is_file() {
            let mut file = File::open(&full)?;
            loop {
                match file.read(&mut self.buffer)? {
                    0 => break,
                    n => hasher.update(&self.buffer[..n]),
                };
            }
        } else if kind.is_symlink() {
            hasher.update(fs::read_link(&full)?.as_os_str().as_bytes());
        }
        Ok(hasher.finalize())
    }

    fn descend(&mut self, path: &Path, full: &Path) -> anyhow::Result<()> {
        let mut names = Vec::new();
        for entry in fs::read_dir(full)? {
            names.push(path.join(entry?.file_name()));
        }
        names.sort_unstable_by(|a, b| b.cmp(a));
        self.pending.append(&mut names);
        Ok(())
    }
}

impl Iterator for Entries {
    type Item = anyhow::Result<(PathBuf, Hash)>;

    fn next(&mut self) -> Option<Self::Item> {
        let path = self.pending.pop()?;
        let digest = self.digest(&path).with_context(|| self.root.join(&path).display().to_string());
        Some(digest.map(|digest| (path, digest)))
    }
}

fn attributes(meta: &Metadata) -> Hasher {
    let mut hasher = Hasher::new();
    let kind = meta.file_type();
    let device = if kind.is_block_device() || kind.is_char_device() { meta.rdev() } else { 0 };
    // The size of a directory or link is the file system's own affair.
    let size = if kind.is_file() { meta.len() } else { 0 };
    for number in
        [meta.mode().into(), meta.uid().into(), meta.gid().into(), device, size, meta.mtime() as u64]
    {
        hasher.update(&u64::to_le_bytes(number));
    }
    hasher
}

/// Fails with the first difference unless both trees are equal; `expected` is the digest of the first.
pub(super) fn compare(source: &Path, expected: Hash, place: &Path) -> anyhow::Result<()> {
    if tree(place)? == expected {
        return Ok(());
    }
    match difference(source, place)? {
        Some(path) => bail!("content differs from the source, first at {}", path.display()),
        None => bail!("content differed from the source, and did not when it was read again"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_byte_changes_the_digest_and_is_found() -> anyhow::Result<()> {
        let (one, other) = (tempfile::tempdir()?, tempfile::tempdir()?);
        let time = std::time::SystemTime::UNIX_EPOCH;
        for (folder, text) in [(&one, "same"), (&other, "sane")] {
            for (name, text) in [("a", "first"), ("b", text)] {
                fs::write(folder.path().join(name), text)?;
                File::open(folder.path().join(name))?.set_modified(time)?;
            }
            File::open(folder.path())?.set_modified(time)?;
        }
        assert_ne!(tree(one.path())?, tree(other.path())?);
        assert_eq!(difference(one.path(), other.path())?, Some(PathBuf::from("b")));
        assert_eq!(tree(one.path())?, tree(one.path())?);
        Ok(())
    }
}
