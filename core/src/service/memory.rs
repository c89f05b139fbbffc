//! What became of services, for the next manager: one that is done is not done again, and one that was stopped stays so.
//!
//! A file has the state of those that do not run. It counts for the life of one spawner, whose end is that of all services; a node
//! that stops in order stops its services itself, which nobody shall remember.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::status::{ServiceState, Status};
use crate::spawner::Spawner;
use crate::sys::text;

/// See the module's text.
#[derive(Debug)]
pub struct Memory {
    path: PathBuf,
    spawner: Spawner,
    /// None once nobody shall remember.
    past: Mutex<Option<BTreeMap<String, Status>>>,
}

/// The file.
#[derive(Serialize, Deserialize)]
struct Kept {
    /// Whose life it counts for.
    spawner: String,
    services: BTreeMap<String, Status>,
}

impl Memory {
    /// Reads what an earlier manager left. What cannot be read is said, and nothing then.
    pub fn open(path: PathBuf, spawner: Spawner) -> Self {
        let read = text::read(&path).and_then(|json| Ok(serde_json::from_str::<Kept>(&json)?));
        let kept = match read {
            Ok(kept) => Some(kept).filter(|kept| spawner.life().is_some_and(|life| life == kept.spawner)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => {
                tracing::warn!("what became of services is not known: {}: {e}", path.display());
                None
            }
        };
        let past = Mutex::new(Some(kept.map(|kept| kept.services).unwrap_or_default()));
        Self { path, spawner, past }
    }

    /// What became of one.
    pub fn of(&self, name: &str) -> Option<Status> {
        self.past.lock().as_ref()?.get(name).cloned()
    }

    /// It is in this state now.
    pub fn note(&self, name: &str, status: &Status) {
        match status.state {
            ServiceState::Done | ServiceState::Failed | ServiceState::Ended | ServiceState::Stopped => {
                self.change(name, |services| {
                    services.insert(name.into(), status.clone()).as_ref() != Some(status)
                });
            }
            ServiceState::Waiting
            | ServiceState::Starting
            | ServiceState::Ready
            | ServiceState::Pausing
            | ServiceState::Skipped => self.forget(name),
        }
    }

    /// It runs, or there is no such service any more.
    pub fn forget(&self, name: &str) {
        self.change(name, |services| services.remove(name).is_some());
    }

    fn change(&self, name: &str, change: impl FnOnce(&mut BTreeMap<String, Status>) -> bool) {
        let mut past = self.past.lock();
        let Some(services) = past.as_mut() else { return };
        if change(services)
            && let Err(e) = self.write(services)
        {
            tracing::error!("what becomes of service {name} is not kept: {}: {e}", self.path.display());
        }
    }

    /// All are stopped from now on, and it says nothing of them.
    pub fn close(&self) {
        *self.past.lock() = None;
    }

    /// Whole or as it was. Nothing is synced: it ends with the spawner, and so with the kernel.
    fn write(&self, services: &BTreeMap<String, Status>) -> io::Result<()> {
        let spawner = self.spawner.life().unwrap_or_default();
        let kept = Kept { spawner, services: services.clone() };
        text::write_private(&self.path, &serde_json::to_string(&kept)?)
    }
}
