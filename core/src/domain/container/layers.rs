//! The layers of containers on disk: a folder for each, which nobody but root enters, made before its container and taken
//! away after it.
//!
//! Taking away is two steps. The folder gets another name, after which nothing of its container is left to wait for; then
//! what is in it is removed, one tree at a time, behind everybody's back. What a node leaves that ends meanwhile, or that
//! loses its records with its power, the next one removes.
//!
//! Limits: a layer is bounded by what is free in its file system, and by nothing else. What a container has locked away
//! (`chattr +i`, which takes a privileged one) stays, and is said.

mod remove;

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use rustix::fs::{FlockOperation, XattrFlags, flock, removexattr, setxattr, statfs};
use rustix::io::Errno;

use super::Id;
use crate::log::now_ms;

/// What the name of a folder begins with whose container is gone.
const GONE: &str = "gone-";
/// By what a file system is known to be an overlay itself (linux/magic.h).
const OVERLAYFS: i64 = 0x794c_7630;

/// Why a container has no layer on disk.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// Nobody has said where.
    #[error(
        "the node has no place on a disk for what containers write: `disk` of [containers] in core0.toml names one; \
         without it they write to memory"
    )]
    NoPlace,
    /// Two nodes would remove each other's.
    #[error("cannot have {0} for the layers of containers: another node has it")]
    Taken(PathBuf),
    /// The kernel refuses.
    #[error("cannot make the upper layer {0}")]
    Make(PathBuf, #[source] io::Error),
    /// The kernel refuses.
    #[error("cannot remove the upper layer {0}")]
    Remove(PathBuf, #[source] io::Error),
    /// The file system under it cannot be written through an overlay.
    #[error(
        "cannot have the upper layer in {0}: {1}, so no overlay can write there; name a folder of another file system"
    )]
    Unfit(PathBuf, &'static str),
}

/// The layers of a node.
#[derive(Debug)]
pub struct Layers {
    folder: Option<PathBuf>,
    /// Held, once it is used, until this node ends.
    held: Mutex<Option<File>>,
    /// Taken by who removes a tree.
    removing: Arc<tokio::sync::Semaphore>,
    numbers: AtomicU64,
}

impl Layers {
    /// Those in `folder`, if there is one. Nothing is touched.
    pub fn new(folder: Option<PathBuf>) -> Self {
        Self {
            folder,
            held: Mutex::default(),
            removing: Arc::new(tokio::sync::Semaphore::new(1)),
            numbers: AtomicU64::default(),
        }
    }

    /// Where the layer of a container is to be: nobody else makes one there. Blocks.
    pub fn place(&self, id: Id) -> Result<PathBuf, LayerError> {
        let folder = self.folder.as_ref().ok_or(LayerError::NoPlace)?;
        self.hold(folder)?;
        Ok(folder.join(id.to_string()))
    }

    /// Makes one at its place. Blocks.
    pub fn make(&self, place: &Path, privileged: bool) -> Result<(), LayerError> {
        let folder = self.folder.as_ref().ok_or(LayerError::NoPlace)?;
        let failed = |e| LayerError::Make(place.into(), e);
        DirBuilder::new().mode(0o700).create(place).map_err(failed)?;
        if statfs(place).map_err(|e| failed(e.into()))?.f_type == OVERLAYFS {
            return Err(LayerError::Unfit(folder.clone(), "it is on an overlay itself"));
        }
        // In a user namespace an overlay keeps its marks in attributes of users. Without any it would seem to work, until a
        // folder of the image is made anew.
        let name = if privileged { c"trusted.overlay.g8" } else { c"user.overlay.g8" };
        match setxattr(place, name, b"y", XattrFlags::empty()).and_then(|()| removexattr(place, name)) {
            Ok(()) => Ok(()),
            Err(Errno::NOTSUP) => {
                Err(LayerError::Unfit(folder.clone(), "its file system keeps no extended attributes"))
            }
            Err(errno) => Err(failed(errno.into())),
        }
    }

    /// Takes one away, if it is there; what is in it goes later. Blocks.
    pub fn remove(&self, place: &Path) -> Result<(), LayerError> {
        let Some(folder) = place.parent() else { return Ok(()) };
        // It may be where an earlier manager was told to have them.
        let _lock = match self.folder.as_deref() == Some(folder) {
            true => self.hold(folder).map(|()| None)?,
            false => Some(lock(folder)?),
        };
        // Never used twice, also not by the node before this one.
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let gone = folder.join(format!("{GONE}{}-{number}", now_ms()));
        match fs::rename(place, &gone) {
            Ok(()) => self.remove_later(vec![gone]),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(LayerError::Remove(place.into(), e)),
        }
        Ok(())
    }

    /// Removes what is nobody's any more; `known` are the containers that are.
    pub fn sweep(&self, known: &BTreeSet<Id>) {
        let Some(folder) = self.folder.as_ref().filter(|folder| folder.exists()) else { return };
        if let Err(error) = self.hold(folder) {
            tracing::error!("what is left of the layers of containers stays: {error}");
            return;
        }
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        // What has another name is not ours.
        let left = entries.filter(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            name.starts_with(GONE) || name.parse::<Id>().is_ok_and(|id| !known.contains(&id))
        });
        self.remove_later(left.map(|entry| entry.path()).collect());
    }

    fn remove_later(&self, trees: Vec<PathBuf>) {
        let removing = self.removing.clone();
        tokio::spawn(async move {
            // It is never closed.
            let Ok(_alone) = removing.acquire().await else { return };
            let all = move || {
                for tree in trees {
                    if let Err(error) = remove::tree(&tree) {
                        let layer = tree.display();
                        tracing::error!(%layer, %error, "what a container has written stays on the disk");
                    }
                }
            };
            // It does not panic, and who ends the node does not wait for it.
            let _ = tokio::task::spawn_blocking(all).await;
        });
    }

    fn hold(&self, folder: &Path) -> Result<(), LayerError> {
        let mut held = self.held.lock();
        if held.is_none() {
            *held = Some(lock(folder)?);
        }
        Ok(())
    }
}

/// Has a folder alone, made when it is missing, for as long as the file is open.
fn lock(folder: &Path) -> Result<File, LayerError> {
    let failed = |e| LayerError::Make(folder.into(), e);
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
    let lock = File::open(folder).map_err(failed)?;
    match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => return Err(LayerError::Taken(folder.into())),
        Err(errno) => return Err(failed(errno.into())),
    }
    // One that was there may be open to all, and what lies in it has set-user-ID.
    rustix::fs::fchmod(&lock, rustix::fs::Mode::RWXU).map_err(|e| failed(e.into()))?;
    Ok(lock)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_left_of_a_node_is_removed_and_what_is_known_or_not_ours_stays() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("layers");
        let layers = Layers::new(Some(place.clone()));
        layers.make(&layers.place(3).unwrap(), false).unwrap();
        for name in ["4/upper/a", "gone-1-0/upper", "mine"] {
            fs::create_dir_all(place.join(name)).unwrap();
        }
        layers.sweep(&[3].into());
        let names = || {
            let names = fs::read_dir(&place).unwrap().map(|entry| entry.unwrap().file_name());
            names.map(|name| name.into_string().unwrap()).collect::<BTreeSet<_>>()
        };
        for _ in 0..2000 {
            if names().len() == 2 {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        assert_eq!(names(), ["3".to_owned(), "mine".into()].into());
        // Nobody else has the folder meanwhile.
        let other = Layers::new(Some(place.clone()));
        assert!(matches!(other.place(5), Err(LayerError::Taken(_))));
        assert!(matches!(other.remove(&place.join("3")), Err(LayerError::Taken(_))));
        assert!(place.join("3").is_dir());
    }

    #[test]
    fn without_a_place_it_is_said_how_to_name_one() {
        let said = Layers::new(None).place(1).unwrap_err().to_string();
        assert!(said.contains("core0.toml"), "{said}");
    }
}
