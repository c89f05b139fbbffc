//! Changing the mode or the owner of a file, or of a tree.
//!
//! A tree is walked without following a symlink, and a mode is changed through a descriptor that cannot be one: who may
//! write in the tree cannot turn the change on a file elsewhere.

use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, Uid, chmod, chownat, fstat, open};

use super::FilesystemError;

/// What a change is for a path or for a whole tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// The path alone, which may be a symlink to what is meant.
    One,
    /// Everything below it, but no symlinks.
    Tree,
}

impl From<bool> for Depth {
    fn from(recursive: bool) -> Self {
        if recursive { Depth::Tree } else { Depth::One }
    }
}

/// Sets permissions.
pub fn change_mode(path: &Path, mode: Mode, depth: Depth) -> Result<(), FilesystemError> {
    match depth {
        Depth::One => {
            chmod(path, mode).map_err(|e| FilesystemError::io("change the mode of", path)(e.into()))
        }
        Depth::Tree => walk("change the mode of", path, |path| set_mode(path, mode)),
    }
}

/// Sets the owner.
pub fn change_owner(path: &Path, user: u32, group: u32, depth: Depth) -> Result<(), FilesystemError> {
    let set = |path: &Path, flags| -> io::Result<()> {
        Ok(chownat(CWD, path, Some(Uid::from_raw(user)), Some(Gid::from_raw(group)), flags)?)
    };
    match depth {
        Depth::One => set(path, AtFlags::empty()).map_err(FilesystemError::io("change the owner of", path)),
        Depth::Tree => walk("change the owner of", path, |path| set(path, AtFlags::SYMLINK_NOFOLLOW)),
    }
}

fn set_mode(path: &Path, mode: Mode) -> io::Result<()> {
    let fd = open(path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    if FileType::from_raw_mode(fstat(&fd)?.st_mode) == FileType::Symlink {
        return Ok(());
    }
    // The mode of an O_PATH descriptor is changed by its name in /proc only.
    Ok(chmod(format!("/proc/self/fd/{}", fd.as_raw_fd()), mode)?)
}

/// Does something to everything at and below `root`, and reports the first failure at the end.
fn walk(
    what: &'static str,
    root: &Path,
    mut change: impl FnMut(&Path) -> io::Result<()>,
) -> Result<(), FilesystemError> {
    let mut failed: Option<(PathBuf, io::Error)> = None;
    let mut failures = 0u64;
    let mut report = |path: &Path, error: io::Error| {
        // Removed since it was listed.
        if error.kind() == io::ErrorKind::NotFound && path != root {
            return;
        }
        failures += 1;
        failed.get_or_insert_with(|| (path.to_owned(), error));
    };
    let mut folders = vec![root.to_owned()];
    while let Some(path) = folders.pop() {
        if let Err(e) = change(&path) {
            report(&path, e);
        }
        if !fs::symlink_metadata(&path).is_ok_and(|m| m.is_dir()) {
            continue;
        }
        let entries = match fs::read_dir(&path) {
            Ok(entries) => entries,
            Err(e) => {
                report(&path, e);
                continue;
            }
        };
        for entry in entries {
            match entry {
                Ok(entry) if entry.file_type().is_ok_and(|t| t.is_dir()) => folders.push(entry.path()),
                Ok(entry) => {
                    if let Err(e) = change(&entry.path()) {
                        report(&entry.path(), e);
                    }
                }
                Err(e) => report(&path, e),
            }
        }
    }
    match failed {
        None => Ok(()),
        Some((path, source)) => {
            Err(FilesystemError::Partly { what, path, others: failures - 1, root: root.to_owned(), source })
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, symlink};

    use super::*;

    fn mode_of(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn a_tree_changes_and_what_its_symlinks_point_to_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        fs::create_dir_all(tree.join("a/b")).unwrap();
        fs::write(tree.join("a/b/f"), "").unwrap();
        let outside = dir.path().join("outside");
        fs::write(&outside, "").unwrap();
        fs::set_permissions(&outside, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        symlink(&outside, tree.join("link")).unwrap();
        change_mode(&tree, Mode::from_raw_mode(0o750), Depth::Tree).unwrap();
        for path in ["", "a", "a/b", "a/b/f"] {
            assert_eq!(mode_of(&tree.join(path)), 0o750, "{path}");
        }
        assert_eq!(mode_of(&outside), 0o600);
        change_owner(&tree, 1234, 4321, Depth::Tree).unwrap();
        let metadata = fs::metadata(tree.join("a/b/f")).unwrap();
        assert_eq!((metadata.uid(), metadata.gid()), (1234, 4321));
        assert_eq!(fs::symlink_metadata(tree.join("link")).unwrap().uid(), 1234);
        assert_eq!(fs::metadata(&outside).unwrap().uid(), 0);
    }

    #[test]
    fn one_path_changes_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("f"), "").unwrap();
        change_mode(dir.path(), Mode::from_raw_mode(0o711), Depth::One).unwrap();
        assert_eq!(mode_of(dir.path()), 0o711);
        assert_ne!(mode_of(&dir.path().join("f")), 0o711);
    }

    #[test]
    fn what_is_missing_is_an_error_in_both_ways() {
        for depth in [Depth::One, Depth::Tree] {
            assert!(change_mode(Path::new("/no/such/place"), Mode::empty(), depth).is_err());
            assert!(change_owner(Path::new("/no/such/place"), 0, 0, depth).is_err());
        }
    }

    #[test]
    fn the_first_of_many_failures_is_named() {
        let error =
            walk("touch", Path::new("/proc/self/task"), |_| Err(io::ErrorKind::PermissionDenied.into()));
        let Err(FilesystemError::Partly { path, others, .. }) = error else { panic!("{error:?}") };
        assert_eq!(path, Path::new("/proc/self/task"));
        assert!(others > 0);
    }
}
