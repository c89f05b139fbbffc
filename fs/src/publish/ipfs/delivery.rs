//! Bringing a node what it lacks: by streamed CARs, or block by block where it has no import.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use backon::BackoffBuilder;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use g8_cache::{BlockId, GetError};
use parking_lot::Mutex;

use super::{CAR_BYTES, PAUSES, Run, patiently};
use crate::car::{header, prefix};
use crate::ipfs::{RpcError, Sent, Verdict};
use crate::publish::{Blocks, Objects, PublishError, stopped};

/// Blocks put at the same time, where there is no import.
const PUTS: usize = 8;
/// How long a node that was cut short may take to write what it has got.
const GRACE: Duration = Duration::from_secs(5);

/// What went into a CAR, known while it is streamed.
#[derive(Debug, Default)]
struct Load {
    blocks: Vec<(BlockId, u64)>,
    /// Why it ended before its end.
    broken: Option<GetError>,
}

impl Load {
    fn sent(&self) -> Sent {
        Sent { blocks: self.blocks.len() as u64, bytes: self.bytes() }
    }

    fn bytes(&self) -> u64 {
        self.blocks.iter().map(|(_, bytes)| bytes).sum()
    }
}

impl Run<'_> {
    /// Sends `missing` and the root, and has it pinned. What the node says against it is for another round.
    pub(super) async fn deliver(
        &mut self,
        missing: Vec<BlockId>,
    ) -> Result<Result<(), Verdict>, PublishError> {
        let root = self.plan.id;
        let mut queue = missing;
        queue.retain(|id| *id != root);
        queue.push(root);
        let mut queue = queue.as_slice();
        let mean = self.plan.data_bytes / self.plan.len() as u64 + 1;
        let most = (CAR_BYTES / mean).max(1) as usize;
        while self.imports && queue.len() > most {
            let (some, rest) = queue.split_at(most);
            match self.send(some.to_vec(), false).await? {
                Ok(()) => queue = rest,
                refused => return Ok(refused),
            }
        }
        match self.imports {
            true => self.send(queue.to_vec(), true).await,
            false => self.put(queue.to_vec()).await.map(Ok),
        }
    }

    /// Sends one CAR, again and again with what of it is missing when the connection breaks.
    async fn send(&mut self, mut ids: Vec<BlockId>, last: bool) -> Result<Result<(), Verdict>, PublishError> {
        let mut pauses = PAUSES.build();
        loop {
            let load = Arc::new(Mutex::new(Load::default()));
            let car = car(&self.plan.id, self.objects, self.objects.stream(ids.clone()), &load);
            let stop = self.objects.stop.clone();
            let answer = tokio::select! {
                answer = self.node.import(car, last, self.silence) => answer,
                () = async { stopped(stop).await; tokio::time::sleep(GRACE).await } => {
                    return Err(PublishError::Stopped(self.to.clone()));
                }
            };
            let load = std::mem::take(&mut *load.lock());
            self.offered.extend(load.blocks.iter().map(|(id, _)| *id));
            if let Some(broken) = load.broken {
                return Err(broken.into());
            }
            let error = match answer {
                Ok(told) => {
                    let verdict = told.judge(load.sent(), last.then_some(&self.plan.id));
                    match verdict {
                        Ok(()) => self.count(&load.blocks),
                        Err(_) => self.objects.progress.take_back(load.bytes()),
                    }
                    // Who has just been told to stop and is done anyway is done.
                    if verdict.is_err() || !last {
                        self.go_on()?;
                    }
                    return Ok(verdict);
                }
                Err(error) => error,
            };
            self.go_on()?;
            self.objects.progress.take_back(load.bytes());
            match error {
                RpcError::Unknown { .. } => {
                    tracing::info!(to = %self.to, "the node has no dag/import: sending block by block");
                    self.imports = false;
                    self.put(ids).await?;
                    return Ok(Ok(()));
                }
                error if error.may_pass() && !error.is_late() => {
                    let Some(pause) = pauses.next() else { return Err(self.told()(error)) };
                    tracing::warn!(to = %self.to, %error, ?pause, "the import broke off: sending what is missing of it");
                    self.pause(pause).await?;
                }
                error => return Err(self.told()(error)),
            }
            ids = self.missing(&ids).await?;
            if last && ids.last() != Some(&self.plan.id) {
                ids.push(self.plan.id);
            }
        }
    }

    /// Puts blocks one by one; a root among them is pinned.
    async fn put(&mut self, ids: Vec<BlockId>) -> Result<(), PublishError> {
        let (node, silence, told) = (self.node.clone(), self.silence, self.told());
        let puts = self.objects.stream(ids.clone()).map(|block| {
            let node = node.clone();
            async move {
                let block = match block {
                    Ok(block) => block,
                    Err(error) => return Err(Err(error)),
                };
                patiently(|| node.put(&block, silence)).await.map_err(Ok)?;
                Ok((block.id(), block.bytes().len() as u64))
            }
        });
        let mut puts = puts.buffered(PUTS);
        let mut arrived = Vec::new();
        while let Some(put) = puts.next().await {
            let (id, bytes) = put.map_err(|error| error.map_or_else(PublishError::from, &told))?;
            self.objects.progress.add(bytes);
            arrived.push((id, bytes));
        }
        drop(puts);
        self.count(&arrived);
        self.go_on()?;
        if ids.contains(&self.plan.id) {
            let root = self.plan.id;
            patiently(|| node.pin(&root, None, silence)).await.map_err(told)?;
        }
        Ok(())
    }

    /// Objects that have arrived.
    fn count(&mut self, arrived: &[(BlockId, u64)]) {
        for (id, bytes) in arrived {
            // A root that was there is sent to be pinned, and not for its bytes.
            if !self.here.contains_key(id) {
                self.sent.insert(*id, *bytes);
            }
        }
    }
}

/// A CAR of `blocks`, whose end is that of the stream; `load` knows what went into it.
fn car(
    root: &BlockId,
    objects: &Objects,
    blocks: Blocks,
    load: &Arc<Mutex<Load>>,
) -> BoxStream<'static, io::Result<Bytes>> {
    let (load, progress) = (load.clone(), objects.progress.clone());
    let sections = blocks.flat_map(move |block| {
        stream::iter(match block {
            Ok(block) => {
                let bytes = block.bytes().len() as u64;
                progress.add(bytes);
                load.lock().blocks.push((block.id(), bytes));
                vec![Ok(prefix(&block.id(), block.bytes().len()).into()), Ok(block.bytes().clone())]
            }
            Err(error) => {
                load.lock().broken = Some(error);
                vec![Err(io::Error::other("a block cannot be had"))]
            }
        })
    });
    stream::iter([Ok(header(&[root.cid()]).into())]).chain(sections).boxed()
}
