//! The ordered list of one mount, and asking it: the first right bytes win.
//!
//! The sources are asked in order. One that refuses is followed by the next at once; one that is merely slow keeps its
//! try while the next is asked too (a hedge), so that a stalled source costs its patience and not the read.
//!
//! So many blocks are asked for at a time, the most urgent first. The bound is on blocks and not on tries: where a try
//! needed a place of its own, a stalled source would soon hold all of them, and the hedges would wait behind it.

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::time::sleep_until;

use crate::block::VerifiedBlock;
use crate::class::{Class, Terms, Urgency};
use crate::error::{GetError, Said};
use crate::gate::Gate;
use crate::id::BlockId;
use crate::source::{Source, SourceStats};
use crate::workers::Workers;

/// Tries for one block at the same time: bounds what hedging can cost.
const MAX_AT_ONCE: usize = 3;
/// Blocks that the sources of one mount are asked for at the same time, from the most urgent class on. Read-ahead leaves
/// a quarter free and the background three, so that an on-demand read never waits behind a full house of them.
const MAX_BLOCKS: [usize; Class::COUNT] = [32, 24, 8];

/// The sources of one mount, in the order they are tried. A clone is the same list.
#[derive(Clone)]
pub struct Sources(Arc<List>);

struct List {
    sources: Box<[Arc<Source>]>,
    gate: Gate,
    workers: Workers,
}

impl Sources {
    /// A list in the order given.
    pub fn new(sources: impl IntoIterator<Item = Arc<Source>>) -> Sources {
        Sources(Arc::new(List {
            sources: sources.into_iter().collect(),
            gate: Gate::new(MAX_BLOCKS),
            workers: Workers::new(),
        }))
    }

    /// The sources in order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Source>> {
        self.0.sources.iter()
    }

    /// The counters of every source, in order.
    pub fn snapshot(&self) -> Vec<SourceStats> {
        self.iter().map(|source| source.snapshot()).collect()
    }

    /// Fetches a block from the sources alone, past every cache, and proves it.
    pub async fn fetch_verified(
        &self,
        id: BlockId,
        terms: impl Into<Terms>,
    ) -> Result<VerifiedBlock, GetError> {
        let Terms { class, deadline } = terms.into();
        self.fetch_from(id, &Urgency::new(class), deadline).await.map(|(block, _)| block)
    }

    /// The same, and who gave it.
    pub(crate) async fn fetch_from(
        &self,
        id: BlockId,
        urgency: &Urgency,
        deadline: Instant,
    ) -> Result<(VerifiedBlock, Arc<Source>), GetError> {
        let started = Instant::now();
        let fetch = async {
            let _place = self.0.gate.enter(urgency).await;
            self.race(id, urgency).await
        };
        match tokio::time::timeout_at(deadline.into(), fetch).await {
            Ok(outcome) => outcome,
            Err(_) => Err(GetError::TimedOut { id, waited: started.elapsed() }),
        }
    }

    /// Reads part of a block, unproven, from the first source that can; none when that does not work at once.
    pub(crate) async fn read_range(
        &self,
        id: BlockId,
        range: Range<u64>,
        urgency: &Urgency,
    ) -> Option<Bytes> {
        let source = self.iter().find(|source| source.reads_ranges())?;
        let _place = self.0.gate.enter(urgency).await;
        source.read_range(id, range).await
    }

    /// Tells two lists apart for as long as both live.
    pub(crate) fn identity(&self) -> usize {
        Arc::as_ptr(&self.0).addr()
    }

    async fn race(&self, id: BlockId, urgency: &Urgency) -> Result<(VerifiedBlock, Arc<Source>), GetError> {
        let mut waiting = self.iter().peekable();
        let mut tries = FuturesUnordered::new();
        let mut said = Vec::new();
        let mut hedge_at = tokio::time::Instant::now();
        loop {
            let due = tries.is_empty() || hedge_at <= tokio::time::Instant::now();
            if due
                && tries.len() < MAX_AT_ONCE
                && let Some(source) = waiting.next()
            {
                hedge_at = tokio::time::Instant::now() + source.patience();
                tries.push(async move { (source, source.fetch(id, urgency, &self.0.workers).await) });
            }
            if tries.is_empty() {
                return Err(GetError::from_answers(id, said));
            }
            let may_hedge = waiting.peek().is_some() && tries.len() < MAX_AT_ONCE;
            tokio::select! {
                Some((source, outcome)) = tries.next() => match outcome {
                    Ok(block) => return Ok((block, Arc::clone(source))),
                    Err(refused) => {
                        said.push(Said { spec: Arc::clone(source.spec()), refused });
                        hedge_at = tokio::time::Instant::now();
                    }
                },
                () = sleep_until(hedge_at), if may_hedge => {}
            }
        }
    }
}
