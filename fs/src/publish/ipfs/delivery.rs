//! Bringing a node what it lacks: by streamed CARs, or block by block where it has no import.
//!
//! A CAR ends where the next block would make it longer than [`CAR_BYTES`]. Which one will be the last has to be known when it begins,
//! since that one brings what is pinned and says so in its call: it is when all that is left must fit.

use std::io;
use std::sync::Arc;
use std::task::Poll;

use backon::BackoffBuilder;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use g8_cache::{BlockId, GetError};
use parking_lot::Mutex;

use super::{PAUSES, Run, patiently};
use crate::car::{MAX_CID, MAX_SECTION, header, prefix};
use crate::ipfs::{RpcError, Sent, Verdict};
use crate::publish::{Blocks, Objects, PublishError};

/// Most bytes of a CAR: a broken connection costs no more, and a node has its own work with larger ones.
const CAR_BYTES: u64 = 256 << 20;
const _: () = assert!(CAR_BYTES >= 64 << 20, "a node is not to be asked about every few blocks");
/// Blocks put at the same time, where there is no import.
const PUTS: usize = 8;

/// What a CAR is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Car {
    /// To bring some of what is missing.
    Part,
    /// To bring all that is left, and the root to be pinned.
    Last,
}

/// What went into a CAR, known while it is streamed.
#[derive(Debug, Default)]
struct Load {
    blocks: Vec<(BlockId, u64)>,
    /// Whether it was streamed to its end.
    is_whole: bool,
    /// Why it ended before its end.
    broken: Option<GetError>,
}

impl Load {
    fn sent(&self) -> Sent {
        let bytes = self.blocks.iter().map(|(_, bytes)| bytes).sum();
        Sent { blocks: self.blocks.len() as u64, bytes, is_whole: self.is_whole }
    }
}

impl Run<'_> {
    /// Sends `missing` and the root, and has it pinned. What the node says against it is for another round.
    pub(super) async fn deliver(
        &mut self,
        missing: Vec<BlockId>,
    ) -> Result<Result<(), Verdict>, PublishError> {
        let (root, roots) = (self.plan.id, self.plan.roots());
        let (mut last, mut queue): (Vec<_>, Vec<_>) = missing.into_iter().partition(|id| roots.contains(id));
        last.retain(|id| *id != root);
        last.push(root);
        while self.imports && !queue.is_empty() && !self.fit(queue.len() + last.len()) {
            match self.send(queue, Car::Part).await? {
                Ok(left) => queue = left,
                Err(verdict) => return Ok(Err(verdict)),
            }
        }
        queue.extend(last);
        match self.imports {
            true => Ok(self.send(queue, Car::Last).await?.map(drop)),
            false => self.put(queue).await.map(Ok),
        }
    }

    /// Whether `objects`, which are all that is missing, surely fit into one CAR.
    fn fit(&self, objects: usize) -> bool {
        let objects = objects as u64;
        let left = self.plan.most_bytes().saturating_sub(self.ledger.bytes());
        let most = left.saturating_add(objects * MAX_CID as u64).min(objects * MAX_SECTION as u64);
        // One more is the header.
        most + MAX_SECTION as u64 <= CAR_BYTES
    }

    /// Sends one CAR, again and again with what of it is missing when the connection breaks. Returns what did not fit.
    async fn send(
        &mut self,
        mut ids: Vec<BlockId>,
        kind: Car,
    ) -> Result<Result<Vec<BlockId>, Verdict>, PublishError> {
        let root = self.plan.id;
        let mut pauses = PAUSES.build();
        loop {
            let load = Arc::new(Mutex::new(Load::default()));
            let blocks = match kind {
                Car::Part => up_to(CAR_BYTES, &root, self.objects.stream(ids.clone())),
                Car::Last => self.objects.stream(ids.clone()),
            };
            let car = car(&root, self.objects, blocks, &load);
            let answer = self.node.import(car, kind == Car::Last, self.silence).await;
            let load = std::mem::take(&mut *load.lock());
            self.objects.progress.rests();
            self.ledger.offers(&load.blocks);
            let left = ids.split_off(load.blocks.len());
            let sent = load.sent();
            if let Some(broken) = load.broken {
                return Err(broken.into());
            }
            let error = match answer {
                Ok(told) => {
                    let verdict = told.judge(sent, (kind == Car::Last).then_some(&root));
                    if verdict.is_ok() {
                        self.ledger.arrived(&load.blocks);
                    }
                    // Who has just been told to stop and is done anyway is done.
                    if verdict.is_err() || kind == Car::Part {
                        self.go_on()?;
                    }
                    return Ok(verdict.map(|()| left));
                }
                Err(error) => error,
            };
            self.go_on()?;
            match error {
                RpcError::Unknown { .. } => {
                    tracing::info!(to = %self.to, "the node has no dag/import: sending block by block");
                    self.imports = false;
                    ids.extend(left);
                    self.put(ids).await?;
                    return Ok(Ok(Vec::new()));
                }
                error if error.may_pass() && !error.is_late() => {
                    let Some(pause) = pauses.next() else { return Err(self.told()(error)) };
                    let pause = pause.max(error.peace());
                    tracing::warn!(to = %self.to, %error, ?pause, "the import broke off: sending what is missing of it");
                    self.pause(pause).await?;
                }
                error => return Err(self.told()(error)),
            }
            ids = self.missing(&ids).await?;
            ids.extend(left);
            if kind == Car::Last && ids.last() != Some(&root) {
                ids.push(root);
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
        while let Some(put) = puts.next().await {
            let (id, bytes) = put.map_err(|error| error.map_or_else(PublishError::from, &told))?;
            self.ledger.arrived(&[(id, bytes)]);
        }
        drop(puts);
        self.go_on()?;
        if ids.contains(&self.plan.id) {
            self.pin(self.plan.id, None).await?;
        }
        Ok(())
    }
}

/// As many of `blocks` as make a CAR of at most `most` bytes. Those that were fetched ahead of its end are fetched again for the next.
fn up_to(most: u64, root: &BlockId, blocks: Blocks) -> Blocks {
    let mut car = header(&[root.cid()]).len() as u64;
    Box::pin(blocks.take_while(move |block| {
        if let Ok(block) = block {
            car += (prefix(&block.id(), block.bytes().len()).len() + block.bytes().len()) as u64;
        }
        std::future::ready(car <= most)
    }))
}

/// A CAR of `blocks`, whose end is that of the stream; `load` knows what went into it.
fn car(
    root: &BlockId,
    objects: &Objects,
    blocks: Blocks,
    load: &Arc<Mutex<Load>>,
) -> BoxStream<'static, io::Result<Bytes>> {
    let (end, load, progress) = (load.clone(), load.clone(), objects.progress.clone());
    let sections = blocks.flat_map(move |block| {
        stream::iter(match block {
            Ok(block) => {
                let bytes = block.bytes().len() as u64;
                progress.moves(bytes);
                load.lock().blocks.push((block.id(), bytes));
                vec![Ok(prefix(&block.id(), block.bytes().len()).into()), Ok(block.bytes().clone())]
            }
            Err(error) => {
                load.lock().broken = Some(error);
                vec![Err(io::Error::other("a block cannot be had"))]
            }
        })
    });
    let end = stream::poll_fn(move |_| {
        end.lock().is_whole = true;
        Poll::Ready(None)
    });
    stream::iter([Ok(header(&[root.cid()]).into())]).chain(sections).chain(end).boxed()
}

#[cfg(test)]
mod tests {
    use g8_cache::{Codec, StoredBlock, VerifiedBlock};

    use super::*;

    fn block(number: u8, bytes: usize) -> VerifiedBlock {
        let bytes = vec![number; bytes];
        StoredBlock::new(BlockId::of(Codec::Raw, &bytes), bytes).unwrap().verify().unwrap()
    }

    #[tokio::test]
    async fn a_car_ends_before_the_block_that_would_make_it_too_long() {
        let root = BlockId::of(Codec::DagCbor, b"");
        // Few large ones and many small ones: their number says nothing about their bytes.
        let sizes: Vec<usize> = [vec![90_000; 9], vec![40; 200], vec![90_000; 9]].concat();
        let mut left: Vec<VerifiedBlock> =
            sizes.iter().enumerate().map(|(number, bytes)| block(number as u8, *bytes)).collect();
        const MOST: u64 = 300_000;
        let mut cars = Vec::new();
        while !left.is_empty() {
            let blocks: Blocks = Box::pin(stream::iter(left.clone()).map(Ok));
            let taken: Vec<_> = up_to(MOST, &root, blocks).map(Result::unwrap).collect().await;
            assert!(!taken.is_empty());
            left.drain(..taken.len());
            let sections = taken.iter().map(|b| prefix(&b.id(), b.bytes().len()).len() + b.bytes().len());
            cars.push(header(&[root.cid()]).len() as u64 + sections.sum::<usize>() as u64);
        }
        assert!(cars.iter().all(|bytes| *bytes <= MOST), "{cars:?}");
        assert!(cars[..cars.len() - 1].iter().all(|bytes| *bytes > MOST - 91_000), "{cars:?}");
        assert_eq!(cars.len(), 6, "{cars:?}");
    }
}
