//! The ordered list of one mount, and asking it: the first right bytes win.
//!
//! The sources are asked in order. One that refuses is followed by the next at once; one that is merely slow keeps its
//! try while the next is asked too (a hedge), so that a stalled source costs its patience and not the read.
//!
//! When none had the block and a remote one failed, those that failed are asked again, after a pause that grows, until the
//! time is over. Nothing that works is asked twice: an answer stays an answer. Sources that failed lately are asked after
//! the others, and those that lied too often not at all (`standing`).
//!
//! So many blocks are asked for at a time, the most urgent first. The bound is on blocks and not on tries: where a try
//! needed a place of its own, a stalled source would soon hold all of them, and the hedges would wait behind it.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBuilder};
use bytes::Bytes;
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::time::{sleep, sleep_until};

use crate::block::VerifiedBlock;
use crate::class::{Class, Terms, Urgency};
use crate::error::{GetError, Refused, Said, SaidList};
use crate::gate::Gate;
use crate::id::BlockId;
use crate::source::{Source, SourceStats};
use crate::standing::Rank;
use crate::workers::Workers;

/// Tries for one block at the same time: bounds what hedging can cost.
const MAX_AT_ONCE: usize = 3;
/// Blocks that the sources of one mount are asked for at the same time, from the most urgent class on. Read-ahead leaves
/// a quarter free and the background three, so that an on-demand read never waits behind a full house of them.
const MAX_BLOCKS: [usize; Class::COUNT] = [32, 24, 8];
/// Pauses before the sources are asked again: 100 ms to 1 s, and up to as much again by chance, so that many readers do not
/// come back all at once.
const PAUSES: ExponentialBuilder = ExponentialBuilder::new()
    .with_min_delay(Duration::from_millis(100))
    .with_max_delay(Duration::from_secs(1))
    .with_factor(2.0)
    .with_jitter()
    .without_max_times();

/// What sources answered that did not give the block.
type Answers = Vec<(Arc<Source>, Refused)>;

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
        match tokio::time::timeout_at(deadline.into(), self.persist(id, urgency)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(GetError::TimedOut { id, waited: started.elapsed(), said: self.trouble() }),
        }
    }

    /// Asks until there is an answer that will not change by itself.
    async fn persist(
        &self,
        id: BlockId,
        urgency: &Urgency,
    ) -> Result<(VerifiedBlock, Arc<Source>), GetError> {
        let mut pauses = PAUSES.build();
        let (mut asked, mut answers) = self.usable();
        loop {
            asked.sort_by_key(|source| source.rank());
            let round = {
                // Who pauses holds no place: others may have sources that work.
                let _place = self.0.gate.enter(urgency).await;
                self.race(id, urgency, &asked).await
            };
            let refused = match round {
                Ok(found) => return Ok(found),
                Err(refused) => refused,
            };
            let (again, settled): (Answers, Answers) =
                refused.into_iter().partition(|(source, refused)| source.is_remote() && refused.may_pass());
            answers.extend(settled);
            if again.is_empty() {
                return Err(GetError::from_answers(id, said(answers).collect()));
            }
            // The one that can be asked first decides; those that want more peace answer so themselves.
            let peace = again.iter().map(|(source, _)| source.peace().unwrap_or_default()).min();
            let pause = pauses.next().unwrap_or_default().max(peace.unwrap_or_default());
            asked = again.into_iter().map(|(source, _)| source).collect();
            tracing::debug!(%id, sources = asked.len(), ?pause, "no source gave the block: asking again");
            sleep(pause).await;
        }
    }

    /// The sources to ask, and the answer of those that are not asked. Who has lied too often is no worse than nobody.
    fn usable(&self) -> (Vec<Arc<Source>>, Answers) {
        let (aside, usable): (Vec<_>, Vec<_>) =
            self.iter().cloned().partition(|source| source.rank() == Rank::SetAside);
        match usable.is_empty() {
            true => (aside, Answers::new()),
            false => (usable, aside.into_iter().map(|source| (source, Refused::SetAside)).collect()),
        }
    }

    /// What goes wrong with sources now.
    pub(crate) fn trouble(&self) -> SaidList {
        let trouble = self.iter().filter_map(|source| Some((Arc::clone(source), source.trouble()?)));
        said(trouble).collect()
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

    /// Asks `sources` once each, in order; what all of them answered when none gave the block.
    async fn race(
        &self,
        id: BlockId,
        urgency: &Urgency,
        sources: &[Arc<Source>],
    ) -> Result<(VerifiedBlock, Arc<Source>), Answers> {
        let mut waiting = sources.iter().peekable();
        let mut tries = FuturesUnordered::new();
        let mut answers = Answers::new();
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
                return Err(answers);
            }
            let may_hedge = waiting.peek().is_some() && tries.len() < MAX_AT_ONCE;
            tokio::select! {
                Some((source, outcome)) = tries.next() => match outcome {
                    Ok(block) => return Ok((block, Arc::clone(source))),
                    Err(refused) => {
                        answers.push((Arc::clone(source), refused));
                        hedge_at = tokio::time::Instant::now();
                    }
                },
                () = sleep_until(hedge_at), if may_hedge => {}
            }
        }
    }
}

fn said(answers: impl IntoIterator<Item = (Arc<Source>, Refused)>) -> impl Iterator<Item = Said> {
    answers.into_iter().map(|(source, refused)| Said { spec: Arc::clone(source.spec()), refused })
}
