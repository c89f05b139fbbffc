//! What a node has mounted, for its callers and because it was told to. When it ends in order it ends that too, and nothing that others mounted with `flist`,
//! whose daemon it shares.
//!
//! A mount is noted in a file, for a manager that comes after one that was killed. That of a caller is noted once it is there: who is
//! killed in between leaves a mount that nobody was told of. One that the node was told of is noted before.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use g8_fs::engine::{MountError, MountStatus, mountpoint};
use serde::{Deserialize, Serialize};

use super::place::{SYSTEM, is_place};
use super::{FlistError, Plan, add_sources, info, mount, unmount};
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
    /// Where the node was told to show it, before links were followed; absent of a caller's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    told: Option<PathBuf>,
}

/// An flist that the node was told to show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Its address.
    pub reference: String,
    /// Where its blocks come from.
    pub sources: Vec<String>,
}

/// Why an flist that the node was told of is not shown.
#[derive(Debug, thiserror::Error)]
pub enum ShowError {
    /// There is nothing to mount on.
    #[error("no folder to mount on: {0}")]
    Folder(#[source] io::Error),
    /// A link on the way.
    #[error("links lead to {}, which is no place for an flist", .0.display())]
    Link(PathBuf),
    /// It would not be known to the next manager.
    #[error("it cannot be noted: {0}")]
    Note(#[source] io::Error),
    /// It cannot be mounted.
    #[error(transparent)]
    Flist(#[from] FlistError),
}

impl Noted {
    /// Those of a folder, which need not be there.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Mounts an flist.
    pub fn mount(&self, plan: Plan) -> Result<MountStatus, FlistError> {
        let status = mount(plan)?;
        let note =
            Note { mountpoint: status.mountpoint.clone(), reference: status.reference.clone(), told: None };
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

    /// Shows an flist at a path unless it is there. In the place of another one, that goes first: who uses it keeps it.
    pub fn show(&self, path: &Path, told: &Told) -> Result<(), ShowError> {
        // A dead mount is no folder any more, and is replaced.
        match fs::create_dir_all(path) {
            Err(e) if !mountpoint::is_dead(path) => return Err(ShowError::Folder(e)),
            Ok(()) | Err(_) => {}
        }
        // As the daemon knows it. A link on the way must not lead to where the file could not name a place.
        let at = mountpoint::resolve(path).map_err(ShowError::Folder)?;
        if path != Path::new(SYSTEM) && at == Path::new(SYSTEM) || !is_place(&at) {
            return Err(ShowError::Link(at));
        }
        let (reference, mountpoint, sources) = (told.reference.clone(), at.clone(), told.sources.clone());
        let plan =
            Plan { reference, mountpoint, sources, told: Vec::new(), mode: None, suid: false, dev: false };
        let is_there = match info(&at) {
            Ok(status) if status.reference == told.reference => {
                // It may have been told of others since.
                let known: Vec<String> =
                    status.sources.iter().map(|source| source.spec.to_string()).collect();
                add_sources(&plan, &known)?;
                true
            }
            // Its note goes with it, once nothing is left to be noted.
            Ok(_) => unmount(&at, true).map(|()| false)?,
            Err(FlistError::Mount(MountError::NotMounted(_))) => false,
            Err(e) => return Err(e.into()),
        };
        self.note(&Note {
            mountpoint: at.clone(),
            reference: told.reference.clone(),
            told: Some(path.into()),
        })
        .map_err(ShowError::Note)?;
        if !is_there {
            mount(plan)?;
        }
        Ok(())
    }

    /// Whether what was shown at a path is there still.
    pub fn is_shown(&self, path: &Path, told: &Told) -> bool {
        let there = |at: &PathBuf| {
            let mount = mountpoint::own_mount_at(at);
            mount.is_ok_and(|mount| mount.reference == told.reference) && !mountpoint::is_dead(at)
        };
        mountpoint::resolve(path).as_ref().is_ok_and(there)
    }

    /// Ends what was shown at a path, also when it is in use: who uses it keeps it.
    pub fn hide(&self, path: &Path) -> Result<(), ShowError> {
        for (file, note) in self.notes().map_err(ShowError::Note)? {
            match note {
                Ok(note) if note.told.as_deref() == Some(path) => {
                    end(&note)?;
                    forget(&file);
                }
                Ok(_) | Err(_) => {}
            }
        }
        Ok(())
    }

    /// Where the node was told to show something, by now or when an earlier manager ran.
    pub fn told(&self) -> io::Result<Vec<PathBuf>> {
        let notes = self.notes()?.into_iter().filter_map(|(_, note)| note.ok());
        Ok(notes.filter_map(|note| note.told).collect())
    }

    /// Ends all mounts of the node, also those that are in use: what that was has ended, or is not the node's.
    pub fn end(&self) {
        let notes = match self.notes() {
            Ok(notes) => notes,
            Err(e) => return tracing::warn!("mounts of flists stay: {}: {e}", self.folder.display()),
        };
        for (file, note) in notes {
            match note {
                Ok(note) => match end(&note) {
                    Ok(()) => forget(&file),
                    Err(e) => tracing::warn!("{} stays mounted: {e}", note.mountpoint.display()),
                },
                Err(e) => tracing::warn!("a mount of an flist stays: {}: {e}", file.display()),
            }
        }
    }

    /// All notes, or why one cannot be read.
    fn notes(&self) -> io::Result<Vec<(PathBuf, io::Result<Note>)>> {
        let files = match fs::read_dir(&self.folder) {
            Ok(files) => files,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(e),
        };
        // One that was being written when a manager was killed has an extension.
        let files = files.flatten().map(|file| file.path()).filter(|file| file.extension().is_none());
        let read = |file: &Path| Ok(serde_json::from_str(&text::read(file)?)?);
        Ok(files.map(|file| (file.clone(), read(&file))).collect())
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
