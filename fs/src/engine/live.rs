//! Looking at a mount, and changing its sources, while it is read.

use std::path::Path;
use std::time::{Duration, Instant};

use g8_cache::{RemoveError, SourceStats};

use super::mountpoint::PathRules;
use super::{Engine, MountError};
use crate::format::RunConfig;
use crate::source::{SourceOptions, Spec, follow_neighbours, is_neighbour};

/// Whether a mount may be left without any source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Last {
    /// No.
    Stays,
    /// Yes: what is in the cache can still be read.
    MayGo,
}

impl Engine {
    /// The sources of the mount seen at `path`, in the order they are asked.
    pub fn sources(&self, path: &Path) -> Result<Vec<SourceStats>, MountError> {
        Ok(self.mount_at(path)?.sources().snapshot())
    }

    /// The blocks that were read so far of the mount seen at `path`, by their numbers in the order of the first time.
    pub fn recorded(&self, path: &Path) -> Result<Vec<u32>, MountError> {
        self.mount_at(path)?.recorded().ok_or_else(|| MountError::NotRecorded(path.to_owned()))
    }

    /// What the flist of the mount seen at `path` says is to be run.
    pub fn config(&self, path: &Path) -> Result<RunConfig, MountError> {
        Ok(self.mount_at(path)?.image().root.config.clone())
    }

    /// Has a mount ask `spec` too, after those it asks already; opening it may take `limit`. The same is refused as when
    /// it is mounted.
    pub fn add_source(
        &self,
        path: &Path,
        spec: &Spec,
        limit: Duration,
    ) -> Result<Vec<SourceStats>, MountError> {
        let mount = self.mount_at(path)?;
        if let Some(local) = spec.local_path() {
            PathRules::read()?.refuse_own("source", local)?;
        }
        let options = SourceOptions { open_by: Some(Instant::now() + limit), ..mount.source_options() };
        let source = spec.open(options)?;
        mount.sources().add(source).map_err(|source| MountError::NotAdded {
            spec: spec.to_string(),
            mountpoint: path.to_owned(),
            source,
        })?;
        if *spec == Spec::Peer {
            follow_neighbours(mount.sources())?;
        }
        mount.asked().push(spec.clone());
        tracing::info!(mountpoint = %path.display(), source = %spec, "added");
        Ok(mount.sources().snapshot())
    }

    /// Has a mount ask `spec` no more.
    pub fn remove_source(&self, path: &Path, spec: &str, last: Last) -> Result<Vec<SourceStats>, MountError> {
        let mount = self.mount_at(path)?;
        // Neighbours go with their `peer:`, so they are no others.
        let nobody_else = || mount.sources().list().iter().all(|source| is_neighbour(source.spec()));
        let removed = match last {
            Last::Stays if *spec == *Spec::Peer.to_string() && nobody_else() => Err(RemoveError::Last),
            Last::Stays => mount.sources().remove(spec),
            Last::MayGo => mount.sources().remove_even_last(spec),
        };
        let refused = |source: RemoveError| MountError::NotRemoved {
            spec: spec.to_owned(),
            mountpoint: path.to_owned(),
            source,
        };
        removed.map_err(refused)?;
        mount.asked().retain(|asked| asked.to_string() != spec);
        tracing::info!(mountpoint = %path.display(), source = spec, "removed");
        Ok(mount.sources().snapshot())
    }
}
