//! Removing a tree that somebody hostile has made, however deep it is and however much is in it.
//!
//! Folders are moved up to the top before they are emptied. So two of them are open at once and no path grows, where a
//! walk down would run out of descriptors, stack, or bytes of a path. No symlink is followed.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, openat, renameat, unlinkat};
use rustix::io::{Errno, Result};

/// Removes a folder with all that is in it. One that was interrupted, however, is gone on with by the next.
pub fn tree(path: &Path) -> io::Result<()> {
    let top = open(CWD, path)?;
    let mut removal = Removal { top: &top, next: 0 };
    // Each turn takes away a level of what is left.
    while removal.turn()? {}
    unlinkat(CWD, path, AtFlags::REMOVEDIR)?;
    Ok(())
}

struct Removal<'a> {
    top: &'a OwnedFd,
    /// What the next folder that comes to the top is called.
    next: u64,
}

impl Removal<'_> {
    /// Removes what it finds at the top; false when there is nothing.
    fn turn(&mut self) -> Result<bool> {
        let mut found = false;
        for entry in Dir::read_from(self.top)? {
            let entry = entry?;
            let name = entry.file_name();
            if !is_dots(name) {
                found = true;
                self.entry(name, entry.file_type())?;
            }
        }
        Ok(found)
    }

    fn entry(&mut self, name: &CStr, kind: FileType) -> Result<()> {
        if !is_folder(self.top, name, kind)? {
            return Ok(());
        }
        let folder = open(self.top, name)?;
        for inner in Dir::read_from(&folder)? {
            let inner = inner?;
            let below = inner.file_name();
            if !is_dots(below) && is_folder(&folder, below, inner.file_type())? {
                self.lift(&folder, below)?;
            }
        }
        match unlinkat(self.top, name, AtFlags::REMOVEDIR) {
            // Something was not listed. The next turn finds it.
            Err(Errno::NOTEMPTY) => Ok(()),
            other => other,
        }
    }

    fn lift(&mut self, from: &OwnedFd, name: &CStr) -> Result<()> {
        loop {
            let to = self.next.to_string();
            self.next += 1;
            match renameat(from, name, self.top, to) {
                // An earlier removal has left it.
                Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR) => {}
                other => return other,
            }
        }
    }
}

/// Whether it is a folder; what is none is removed.
fn is_folder(parent: &OwnedFd, name: &CStr, kind: FileType) -> Result<bool> {
    if kind == FileType::Directory {
        return Ok(true);
    }
    match unlinkat(parent, name, AtFlags::empty()) {
        // The file system had not told.
        Err(Errno::ISDIR) => Ok(true),
        other => other.map(|()| false),
    }
}

fn open(parent: impl AsFd, name: impl rustix::path::Arg) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(parent, name, flags, Mode::empty())
}

fn is_dots(name: &CStr) -> bool {
    [c".", c".."].contains(&name)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rustix::fs::mkdirat;

    use super::*;

    #[test]
    fn a_tree_deeper_than_any_path_is_removed_and_what_its_symlinks_lead_to_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let (tree_path, kept) = (folder.path().join("tree"), folder.path().join("kept"));
        fs::create_dir_all(kept.join("folder")).unwrap();
        fs::create_dir(&tree_path).unwrap();
        let mut deep = open(CWD, &tree_path).unwrap();
        for level in 0..3000 {
            if level % 100 == 0 {
                rustix::fs::symlinkat(&kept, &deep, "symlink").unwrap();
                mkdirat(&deep, "0", Mode::RWXU).unwrap();
            }
            mkdirat(&deep, "folder", Mode::RWXU).unwrap();
            deep = open(&deep, "folder").unwrap();
        }
        drop(deep);
        tree(&tree_path).unwrap();
        assert!(!tree_path.exists());
        assert!(kept.join("folder").is_dir());
    }

    #[test]
    fn a_removal_that_was_interrupted_is_gone_on_with() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tree");
        for name in ["0/a/b", "1/a", "upper/x/y"] {
            fs::create_dir_all(path.join(name)).unwrap();
        }
        // As it leaves them: some have come to the top.
        tree(&path).unwrap();
        assert!(!path.exists());
    }
}
