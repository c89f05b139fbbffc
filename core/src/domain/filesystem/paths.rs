//! What can be done to a path.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

use schemars::JsonSchema;
use serde::Serialize;

use super::FilesystemError;
use crate::sys::mount_table;

/// Most entries of one list.
const MAX_ENTRIES: usize = 65_536;

/// An entry of a folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Entry {
    /// Its name; what is not UTF-8 in it is shown as U+FFFD.
    pub name: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its permissions.
    pub mode: u32,
    /// It is a folder, and no symlink to one.
    pub is_dir: bool,
}

/// Something is there; a symlink whose target is missing is nothing.
pub fn exists(path: &Path) -> Result<bool, FilesystemError> {
    match fs::metadata(path) {
        Ok(_) => Ok(true),
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(false),
        Err(e) => Err(FilesystemError::io("look at", path)(e)),
    }
}

/// The entries of a folder, by name.
pub fn list(path: &Path) -> Result<Vec<Entry>, FilesystemError> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(path).map_err(FilesystemError::io("list", path))? {
        let entry = entry.map_err(FilesystemError::io("list", path))?;
        let metadata = match entry.metadata() {
            Ok(metadata) => metadata,
            // Removed since it was listed.
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => return Err(FilesystemError::io("look at", &entry.path())(e)),
        };
        if entries.len() == MAX_ENTRIES {
            return Err(FilesystemError::TooManyEntries(path.to_owned(), MAX_ENTRIES));
        }
        entries.push(Entry {
            name: entry.file_name().to_string_lossy().into_owned(),
            size: metadata.len(),
            mode: metadata.permissions().mode() & 0o777,
            is_dir: metadata.is_dir(),
        });
    }
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}

/// Makes a folder and those above it that are missing.
pub fn make_dir(path: &Path) -> Result<(), FilesystemError> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o755).create(path);
    made.map_err(FilesystemError::io("make the folder", path))
}

/// Removes whatever is there, with all that is below it. What is not there is removed already.
pub fn remove(path: &Path) -> Result<(), FilesystemError> {
    let failed = FilesystemError::io("remove", path);
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(failed(e)),
    };
    if !metadata.is_dir() {
        return fs::remove_file(path).map_err(failed);
    }
    let resolved = path.canonicalize().map_err(FilesystemError::io("remove", path))?;
    if resolved == Path::new("/") {
        return Err(FilesystemError::Root(path.to_owned()));
    }
    let mounted = mount_table::at_or_below(&resolved).map_err(FilesystemError::io("remove", path))?;
    if let Some(mount) = mounted {
        return Err(FilesystemError::Mounted { path: path.to_owned(), mountpoint: mount.mountpoint });
    }
    fs::remove_dir_all(&resolved).map_err(failed)
}

/// Moves what is at `path`, within its file system.
pub fn move_to(path: &Path, destination: &Path) -> Result<(), FilesystemError> {
    fs::rename(path, destination).map_err(FilesystemError::io("move", path))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_list_has_names_sizes_and_kinds() {
        let dir = tempfile::tempdir().unwrap();
        make_dir(&dir.path().join("a/b")).unwrap();
        fs::write(dir.path().join("f"), "12345").unwrap();
        fs::set_permissions(dir.path().join("f"), fs::Permissions::from_mode(0o4640)).unwrap();
        symlink("a", dir.path().join("link")).unwrap();
        let entries = list(dir.path()).unwrap();
        let names: Vec<&str> = entries.iter().map(|e| e.name.as_str()).collect();
        assert_eq!(names, ["a", "f", "link"]);
        assert_eq!((entries[0].is_dir, entries[2].is_dir), (true, false));
        assert_eq!((entries[1].size, entries[1].mode), (5, 0o640));
    }

    #[test]
    fn removing_twice_is_removing_once() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("x");
        make_dir(&target.join("y/z")).unwrap();
        fs::write(target.join("y/f"), "").unwrap();
        remove(&target).unwrap();
        assert!(!exists(&target).unwrap());
        remove(&target).unwrap();
    }

    #[test]
    fn a_symlink_is_removed_and_not_what_it_points_to() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("folder");
        make_dir(&folder).unwrap();
        let link = dir.path().join("link");
        symlink(&folder, &link).unwrap();
        remove(&link).unwrap();
        assert!(exists(&folder).unwrap() && !exists(&link).unwrap());
    }

    #[test]
    fn the_root_and_what_holds_a_mount_stay() {
        for path in ["/", "/..", "/proc/..", "/usr/../"] {
            assert!(matches!(remove(Path::new(path)), Err(FilesystemError::Root(_))), "{path}");
        }
        assert!(matches!(remove(Path::new("/proc")), Err(FilesystemError::Mounted { .. })));
        assert!(matches!(remove(Path::new("/dev/../proc")), Err(FilesystemError::Mounted { .. })));
    }

    #[test]
    fn a_missing_folder_is_named() {
        let error = list(Path::new("/no/such/place")).unwrap_err();
        assert_eq!(error.to_string(), "cannot list /no/such/place");
        assert!(!exists(Path::new("/no/such/place")).unwrap());
        assert!(!exists(Path::new("/proc/version/x")).unwrap());
    }

    #[test]
    fn a_move_replaces_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        fs::write(&a, "new").unwrap();
        fs::write(&b, "old").unwrap();
        move_to(&a, &b).unwrap();
        assert_eq!(fs::read(&b).unwrap(), b"new");
        assert!(!exists(&a).unwrap());
    }
}
