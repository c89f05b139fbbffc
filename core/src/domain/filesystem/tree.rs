//! Changing the mode or the owner of a file, or of a tree.
//!
//! A tree is walked through descriptors of its folders, which are opened without following any symlink on the way
//! (openat2(2)), and what is in a folder is changed by its name in there, or through a descriptor that cannot be a symlink: who
//! may write in the tree cannot turn the change on a file elsewhere.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Uid, chmod, chownat, fstat, openat, openat2,
};
use rustix::io::Errno;

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
        Depth::Tree => walk("change the mode of", path, |folder, name| set_mode(folder, name, mode)),
    }
}

/// Sets the owner.
pub fn change_owner(path: &Path, user: u32, group: u32, depth: Depth) -> Result<(), FilesystemError> {
    let set = |folder: BorrowedFd<'_>, name: &OsStr, flags| {
        chownat(folder, name, Some(Uid::from_raw(user)), Some(Gid::from_raw(group)), flags)
    };
    match depth {
        Depth::One => set(CWD, path.as_os_str(), AtFlags::empty())
            .map_err(|e| FilesystemError::io("change the owner of", path)(e.into())),
        Depth::Tree => {
            walk("change the owner of", path, |folder, name| set(folder, name, AtFlags::SYMLINK_NOFOLLOW))
        }
    }
}

fn set_mode(folder: BorrowedFd<'_>, name: &OsStr, mode: Mode) -> Result<(), Errno> {
    let fd = openat(folder, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    if FileType::from_raw_mode(fstat(&fd)?.st_mode) == FileType::Symlink {
        return Ok(());
    }
    // The mode of an O_PATH descriptor is changed by its name in /proc only.
    chmod(format!("/proc/self/fd/{}", fd.as_raw_fd()), mode)
}

/// The failures of a walk: the first, and how many others there were.
struct Failures {
    root: PathBuf,
    first: Option<(PathBuf, io::Error)>,
    count: u64,
}

impl Failures {
    fn report(&mut self, path: PathBuf, error: Errno) {
        // Removed since it was listed.
        if error == Errno::NOENT && path != self.root {
            return;
        }
        self.count += 1;
        self.first.get_or_insert_with(|| (path, error.into()));
    }
}

/// Does something to everything at and below `root`, and reports the first failure at the end.
fn walk(
    what: &'static str,
    root: &Path,
    mut change: impl FnMut(BorrowedFd<'_>, &OsStr) -> Result<(), Errno>,
) -> Result<(), FilesystemError> {
    let mut failures = Failures { root: root.to_owned(), first: None, count: 0 };
    if let Err(e) = change(CWD, root.as_os_str()) {
        failures.report(root.to_owned(), e);
    }
    match open_folder(CWD, root.as_os_str(), ResolveFlags::empty()) {
        // The path itself may lead over symlinks; what is below it may not.
        Ok(top) => walk_below(&top, &mut failures, change),
        Err(Errno::NOTDIR | Errno::LOOP) => {}
        Err(e) => failures.report(root.to_owned(), e),
    }
    match failures.first {
        None => Ok(()),
        Some((path, source)) => {
            let (others, root) = (failures.count - 1, root.to_owned());
            Err(FilesystemError::Partly { what, path, others, root, source })
        }
    }
}

fn walk_below(
    top: &OwnedFd,
    failures: &mut Failures,
    mut change: impl FnMut(BorrowedFd<'_>, &OsStr) -> Result<(), Errno>,
) {
    // Paths and not descriptors, of which a deep tree would take too many.
    let mut folders = vec![PathBuf::from(".")];
    while let Some(inner) = folders.pop() {
        let shown = |name: &OsStr| failures_path(&failures.root, &inner, name);
        let folder = match open_folder(top.as_fd(), inner.as_os_str(), ResolveFlags::NO_SYMLINKS) {
            Ok(folder) => folder,
            // Something else is in its place by now, and was changed as what it was.
            Err(Errno::NOTDIR | Errno::LOOP) => continue,
            Err(e) => {
                failures.report(shown(OsStr::new("")), e);
                continue;
            }
        };
        let entries = match Dir::read_from(&folder) {
            Ok(entries) => entries,
            Err(e) => {
                failures.report(shown(OsStr::new("")), e);
                continue;
            }
        };
        for entry in entries {
            let entry = match entry {
                Ok(entry) => entry,
                Err(e) => {
                    failures.report(failures_path(&failures.root, &inner, OsStr::new("")), e);
                    break;
                }
            };
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." {
                continue;
            }
            if let Err(e) = change(folder.as_fd(), name) {
                failures.report(failures_path(&failures.root, &inner, name), e);
            }
            // A file system that does not tell kinds apart has it looked at when it is opened.
            if matches!(entry.file_type(), FileType::Directory | FileType::Unknown) {
                folders.push(inner.join(name));
            }
        }
    }
}

fn failures_path(root: &Path, inner: &Path, name: &OsStr) -> PathBuf {
    let below = inner.strip_prefix(".").unwrap_or(inner).join(name);
    if below.as_os_str().is_empty() { root.to_owned() } else { root.join(below) }
}

fn open_folder(from: BorrowedFd<'_>, name: &OsStr, resolve: ResolveFlags) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat2(from, name, flags, Mode::empty(), resolve)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, symlink};
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::{Duration, Instant};

    use rustix::fs::{RenameFlags, renameat_with};

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
    fn who_swaps_a_folder_for_a_symlink_meanwhile_changes_nothing_elsewhere() {
        let dir = tempfile::tempdir().unwrap();
        let (tree, outside) = (dir.path().join("tree"), dir.path().join("outside"));
        fs::create_dir_all(tree.join("a")).unwrap();
        fs::create_dir(&outside).unwrap();
        for n in 0..50 {
            fs::write(tree.join(format!("a/{n}")), "").unwrap();
            fs::write(outside.join(n.to_string()), "").unwrap();
        }
        symlink(&outside, tree.join("b")).unwrap();
        let done = AtomicBool::new(false);
        let swap = || {
            while !done.load(Ordering::Relaxed) {
                renameat_with(CWD, tree.join("a"), CWD, tree.join("b"), RenameFlags::EXCHANGE).unwrap();
            }
        };
        std::thread::scope(|threads| {
            threads.spawn(swap);
            let end = Instant::now() + Duration::from_secs(2);
            while Instant::now() < end {
                // What is swapped in between may be missing, and no more than that.
                let _ = change_owner(&tree, 1234, 1234, Depth::Tree);
                let _ = change_mode(&tree, Mode::from_raw_mode(0o777), Depth::Tree);
            }
            done.store(true, Ordering::Relaxed);
        });
        for n in 0..50 {
            let file = fs::metadata(outside.join(n.to_string())).unwrap();
            assert!(
                file.uid() == 0 && file.mode() & 0o777 != 0o777,
                "file {n} outside of the tree was changed"
            );
        }
    }

    #[test]
    fn a_deep_tree_is_changed_to_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join(["d"; 800].join("/"));
        fs::create_dir_all(&deep).unwrap();
        change_owner(dir.path(), 77, 77, Depth::Tree).unwrap();
        assert_eq!(fs::metadata(deep).unwrap().uid(), 77);
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
        let error = walk("touch", Path::new("/proc/self/task"), |_, _| Err(Errno::ACCESS));
        let Err(FilesystemError::Partly { path, others, .. }) = error else { panic!("{error:?}") };
        assert_eq!(path, Path::new("/proc/self/task"));
        assert!(others > 0);
    }
}
