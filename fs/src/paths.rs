//! Paths inside an image, resolved as a process chrooted into it would see them.

use std::path::{Path, PathBuf};

use serde::Serializer;

use crate::erofs::Inode;
use crate::filesystem::{Filesystem, FsError};

/// Most symlinks in one path, as in Linux (path_resolution(7)).
const MAX_SYMLINKS: usize = 40;

/// What to do with a symlink at the end of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Last {
    /// The symlink itself is meant.
    Itself,
    /// What it points to is meant.
    Follow,
}

/// The inode at `path`, which is always taken from the root of the image; `..` never leaves it.
pub fn resolve(fs: &Filesystem, path: &[u8], last: Last) -> Result<Inode, FsError> {
    let tree = &fs.image().tree;
    // The way from the root to where we are.
    let mut trail = vec![fs.inode(tree.root())?];
    let mut todo: Vec<Vec<u8>> = components(path);
    let mut symlinks = 0;
    while let Some(name) = todo.pop() {
        let here = trail.last().expect("the root is never popped");
        if !here.is_dir() {
            return Err(FsError::NotADirectory);
        }
        if name == b".." {
            if trail.len() > 1 {
                trail.pop();
            }
            continue;
        }
        let next = fs.lookup(here.nid, &name)?.ok_or(FsError::NotFound)?;
        if next.is_symlink() && (!todo.is_empty() || last == Last::Follow) {
            symlinks += 1;
            if symlinks > MAX_SYMLINKS {
                return Err(FsError::Loop);
            }
            let target = tree.read_link(&next)?;
            if target.starts_with(b"/") {
                trail.truncate(1);
            }
            todo.append(&mut components(target));
        } else {
            trail.push(next);
        }
    }
    Ok(trail.pop().expect("the root is never popped"))
}

/// The components of a path, last first.
fn components(path: &[u8]) -> Vec<Vec<u8>> {
    path.rsplit(|b| *b == b'/').filter(|c| !c.is_empty() && *c != b".").map(<[u8]>::to_vec).collect()
}

/// A path in a report: JSON knows only Unicode, so what is not becomes U+FFFD.
pub(crate) fn lossy<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&path.display())
}

/// [`lossy`] for a list.
pub(crate) fn lossy_list<S: Serializer>(paths: &[PathBuf], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(paths.iter().map(|path| path.display().to_string()))
}
