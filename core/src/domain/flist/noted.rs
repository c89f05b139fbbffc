//! What a node has mounted for its callers. When it ends in order it ends that too, and nothing that others mounted with `flist`,
//! whose daemon it shares.
//!
//! A mount is noted in a file, for a manager that comes after one that was killed. It is noted once it is there: who is killed
//! in between leaves a mount that nobody was told of.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use g8_fs::engine::{MountError, MountStatus, mountpoint};
use serde::{Deserialize, Serialize};

use super::{FlistError, Plan, mount, unmount};
use crate::sys::text;

/// See the module's text.
#[derive(Debug)]
pub struct Noted {
    folder: PathBuf,
}

/// One mount.
#[derive(Serialize, Deserialize)]
struct Note {
    mountpoint: PathBuf,
    /// The flist that is there; another one is somebody else's.
    reference: String,
}

impl Noted {
    /// Those of a folder, which need not be there.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Mounts an flist.
    pub fn mount(&self, plan: Plan) -> Result<MountStatus, FlistError> {
        let status = mount(plan)?;
        let note = Note { mountpoint: status.mountpoint.clone(), reference: status.reference.clone() };
        if let Err(e) = self.note(&note) {
            tracing::warn!("{} stays mounted when the node ends: {e}", note.mountpoint.display());
        }
        Ok(status)
    }

    /// Ends a mount, whoever's.
    pub fn unmount(&self, path: &Path, lazy: bool) -> Result<(), FlistError> {
        unmount(path, lazy)?;
        forget(&self.file(path));
        Ok(())
    }

    /// Ends all mounts of the node, also those that are in use: what that was has ended, or is not the node's.
    pub fn end(&self) {
        let files = match fs::read_dir(&self.folder) {
            Ok(files) => files,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return,
            Err(e) => return tracing::warn!("mounts of flists stay: {}: {e}", self.folder.display()),
        };
        // One that was being written when a manager was killed has an extension.
        for file in files.flatten().map(|file| file.path()).filter(|file| file.extension().is_none()) {
            match text::read(&file).and_then(|json| Ok(serde_json::from_str::<Note>(&json)?)) {
                Ok(note) => match end(&note) {
                    Ok(()) => forget(&file),
                    Err(e) => tracing::warn!("{} stays mounted: {e}", note.mountpoint.display()),
                },
                Err(e) => tracing::warn!("a mount of an flist stays: {}: {e}", file.display()),
            }
        }
    }

    fn note(&self, note: &Note) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        text::write_private(&self.file(&note.mountpoint), &serde_json::to_string(note)?)
    }

    fn file(&self, mountpoint: &Path) -> PathBuf {
        self.folder.join(blake3::hash(mountpoint.as_os_str().as_bytes()).to_hex().as_str())
    }
}

fn end(note: &Note) -> Result<(), FlistError> {
    match mountpoint::own_mount_at(&note.mountpoint) {
        Ok(mount) if mount.reference == note.reference => unmount(&note.mountpoint, true),
        // It is gone, and what came there is not ours.
        Ok(_) | Err(MountError::NotMounted(_)) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

fn forget(file: &Path) {
    if let Err(e) = fs::remove_file(file)
        && e.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!("a mount that has ended stays noted: {}: {e}", file.display());
    }
}
