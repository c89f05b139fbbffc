//! Files that are written aside, locked while they are, and swept when their writers are gone: the next one who writes in a
//! folder removes what nobody has locked.

use std::fs::{self, File, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use tempfile::NamedTempFile;

/// Begins the names of files that are being written.
const WRITING: &str = ".writing-";

/// A new file in `folder` whose name ends in `suffix`. It goes away unless it is given another name.
pub(crate) fn create(folder: &Path, suffix: &str, permissions: Permissions) -> io::Result<NamedTempFile> {
    sweep(folder, suffix);
    loop {
        let mut builder = tempfile::Builder::new();
        let file =
            builder.prefix(WRITING).suffix(suffix).permissions(permissions.clone()).tempfile_in(folder)?;
        match file.as_file().try_lock() {
            // Somebody who sweeps may have seen it before it was locked, and has removed it or is about to.
            Ok(()) if file.as_file().metadata()?.nlink() == 0 => {}
            Err(TryLockError::WouldBlock) => {}
            // A filesystem without locks: there nobody can lock it to sweep it either.
            Ok(()) | Err(TryLockError::Error(_)) => return Ok(file),
        }
    }
}

/// Removes what writers left that are gone. What cannot be removed is left for the next time: nobody needs its place.
fn sweep(folder: &Path, suffix: &str) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let name = name.as_encoded_bytes();
        if name.starts_with(WRITING.as_bytes())
            && name.ends_with(suffix.as_bytes())
            && let Err(error) = remove_abandoned(&entry.path())
        {
            tracing::debug!(path = %entry.path().display(), %error, "a temporary file stays");
        }
    }
}

/// Removes a regular file of ours that nobody has locked.
fn remove_abandoned(path: &Path) -> io::Result<()> {
    let meta = fs::symlink_metadata(path)?;
    if !meta.is_file() || meta.uid() != rustix::process::geteuid().as_raw() {
        return Ok(());
    }
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let file = File::options().read(true).write(true).custom_flags(flags).open(path)?;
    match file.try_lock() {
        // While we hold the lock it is given no other name: who writes it has the lock before it does.
        Ok(()) if file.metadata()?.ino() == meta.ino() => fs::remove_file(path),
        Ok(()) | Err(TryLockError::WouldBlock) => Ok(()),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_a_dead_writer_left_is_swept_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at(".writing-dead.car"), "half").unwrap();
        fs::write(at(".writing-dead.txt"), "another kind").unwrap();
        fs::write(at("kept.car"), "whole").unwrap();
        fs::create_dir(at(".writing-store.car")).unwrap();
        std::os::unix::fs::symlink("kept.car", at(".writing-link.car")).unwrap();
        let mode = || Permissions::from_mode(0o600);
        let living = create(folder.path(), ".car", mode()).unwrap();
        assert!(!at(".writing-dead.car").exists());
        let second = create(folder.path(), ".car", mode()).unwrap();
        assert!(living.path().exists() && second.path().exists(), "they are being written");
        for name in [".writing-dead.txt", "kept.car", ".writing-store.car", ".writing-link.car"] {
            assert!(at(name).symlink_metadata().is_ok(), "{name}");
        }
        living.persist(at("new.car")).unwrap();
        drop(second);
        assert!(at("new.car").exists());
    }
}
