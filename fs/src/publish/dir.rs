//! Publishing into a `dir:` store: what is there and right stays, the root comes last.

use std::path::Path;
use std::sync::Arc;

use futures::stream::{self, StreamExt};
use g8_cache::{BlockId, StoredBlock, VerifiedBlock};

use super::plan::Plan;
use super::{AHEAD, Done, Objects, PublishError, stopped};
use crate::source::DirStore;

/// What is done about one object.
enum Step {
    /// It is there, with so many bytes.
    Present(u64),
    /// It has to be written.
    Write(VerifiedBlock),
}

pub(super) async fn publish(plan: &Plan, objects: &Objects, path: &Path) -> Result<Done, PublishError> {
    let store = Arc::new(DirStore::create(path)?);
    let steps = stream::iter(plan.root_last()).map(|id| step(id, objects, &store));
    let mut steps = Box::pin(steps.buffered(AHEAD).take_until(stopped(objects.stop.clone())));
    let (mut done, mut handled) = (Done::default(), 0);
    while let Some(step) = steps.next().await {
        handled += 1;
        match step? {
            Step::Present(bytes) => {
                done.skipped_bytes += bytes;
                objects.progress.found(bytes);
            }
            Step::Write(block) => {
                let (store, bytes) = (store.clone(), block.bytes().len() as u64);
                tokio::task::spawn_blocking(move || store.put(&block.id(), block.bytes())).await??;
                done.sent += 1;
                done.sent_bytes += bytes;
                objects.progress.arrived(bytes);
            }
        }
    }
    drop(steps);
    // Also after a stop: what was put is there for the next run.
    let written = store.clone();
    tokio::task::spawn_blocking(move || written.sync()).await??;
    match handled == plan.len() {
        true => Ok(done),
        false => Err(PublishError::Stopped(format!("dir:{}", path.display()))),
    }
}

async fn step(id: BlockId, objects: &Objects, store: &Arc<DirStore>) -> Result<Step, PublishError> {
    let there = {
        let store = store.clone();
        let look = move || {
            // Whatever it is that cannot be read or is wrong, it is written anew.
            let bytes = store.get(&id).ok().flatten()?;
            Some(StoredBlock::new(id, bytes).ok()?.verify().ok()?.bytes().len() as u64)
        };
        tokio::task::spawn_blocking(look).await?
    };
    match there {
        Some(bytes) => Ok(Step::Present(bytes)),
        None => {
            let deadline = std::time::Instant::now() + objects.deadline;
            Ok(Step::Write(objects.sources.fetch_verified(id, deadline).await?))
        }
    }
}
