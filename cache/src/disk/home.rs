//! The directory of a cache: its lock, its key, and where the database lies.
//!
//! ```text
//! DIR/lock        locked by the one process that owns the cache
//! DIR/key         32 random bytes, mode 0600: the key of the MACs
//! DIR/db          the database
//! DIR/db.damaged  the last database that could not be opened, until `gc`
//! ```

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::value::MacKey;
use crate::cache::OpenError;

const NOFOLLOW: i32 = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();

/// The directory, owned by this process until dropped.
pub(super) struct Home {
    dir: PathBuf,
    _lock: File,
}

impl Home {
    /// Makes the directory if it is missing, and locks it.
    pub(super) fn lock(dir: &Path) -> Result<Home, OpenError> {
        let failed = |source| OpenError::Directory { dir: dir.to_owned(), source };
        // For the owner alone: the blocks may be of private images.
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed)?;
        refuse_foreign(dir)?;
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(NOFOLLOW)
            .open(dir.join("lock"))
            .map_err(failed)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Home { dir: dir.to_owned(), _lock: lock }),
            Err(Errno::WOULDBLOCK) => Err(OpenError::Busy { dir: dir.to_owned() }),
            Err(errno) => Err(failed(errno.into())),
        }
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn database(&self) -> PathBuf {
        self.dir.join("db")
    }

    /// The key; a new one when there is none, and then the database goes, since nothing in it can be proven.
    pub(super) fn key(&self) -> io::Result<MacKey> {
        let path = self.dir.join("key");
        let mut key = [0; 32];
        match fs::read(&path) {
            Ok(bytes) if bytes.len() == key.len() => {
                key.copy_from_slice(&bytes);
                return Ok(MacKey(key));
            }
            Ok(_cut) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        self.set_database_aside()?;
        File::open("/dev/urandom")?.read_exact(&mut key)?;
        let fresh = self.dir.join("key.new");
        ignore_missing(fs::remove_file(&fresh))?;
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
        file.write_all(&key)?;
        file.sync_all()?;
        fs::rename(&fresh, &path)?;
        Ok(MacKey(key))
    }

    /// Renames the database out of the way, in place of an earlier one.
    pub(super) fn set_database_aside(&self) -> io::Result<()> {
        self.remove_set_aside()?;
        ignore_missing(fs::rename(self.database(), self.dir.join("db.damaged")))
    }

    pub(super) fn remove_set_aside(&self) -> io::Result<()> {
        ignore_missing(fs::remove_dir_all(self.dir.join("db.damaged")))
    }

    pub(super) fn remove_database(&self) -> io::Result<()> {
        ignore_missing(fs::remove_dir_all(self.database()))
    }

    /// Writes a little and removes it: fails when the disk is full or read-only.
    pub(super) fn try_write(&self) -> io::Result<()> {
        let probe = self.dir.join("probe");
        ignore_missing(fs::remove_file(&probe))?;
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&probe);
        let written = file.and_then(|mut file| file.write_all(&[1; 4096]));
        ignore_missing(fs::remove_file(&probe)).and(written)
    }

    /// Bytes that the file system still gives to this process. Unknown counts as plenty: a write will tell.
    pub(super) fn free_bytes(&self) -> u64 {
        rustix::fs::statvfs(&self.dir).map_or(u64::MAX, |vfs| vfs.f_bavail.saturating_mul(vfs.f_frsize))
    }
}

/// Whoever else may write into the directory decides what we open in it: its blocks are proven, but not its symlinks.
fn refuse_foreign(dir: &Path) -> Result<(), OpenError> {
    let meta = fs::metadata(dir).map_err(|source| OpenError::Directory { dir: dir.to_owned(), source })?;
    if meta.uid() != rustix::process::geteuid().as_raw() || meta.mode() & 0o022 != 0 {
        return Err(OpenError::Foreign { dir: dir.to_owned() });
    }
    Ok(())
}

fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
