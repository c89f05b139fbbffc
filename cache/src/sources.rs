//! The ordered list of one mount, and asking it: the first right bytes win.
//!
//! The sources are asked in order. One that refuses is followed by the next at once; one that is merely slow keeps its
//! try while the next is asked too (a hedge), so that a stalled source costs its patience and not the read.
//!
//! When none had the block and a remote one failed, those that failed are asked again, after a pause that grows, until the
//! time is over. Nothing that works is asked twice: an answer stays an answer. Sources that failed lately are asked after
//! the others, and those that lied too often not at all (`standing`).
//!
//! The list is live. A read under way takes up what is added, also when it waits for a stalled source or pauses, and begins
//! no more tries of what is removed in its next round. So a mount whose only source is dead recovers, with the reads that
//! wait, when it is given another one.
//!
//! So many blocks are asked for at a time, the most urgent first. The bound is on blocks and not on tries: where a try
//! needed a place of its own, a stalled source would soon hold all of them, and the hedges would wait behind it.

mod followed;

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBuilder};
use bytes::Bytes;
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::sync::watch;
use tokio::time::{sleep, sleep_until};

use crate::block::VerifiedBlock;
use crate::class::{Class, Terms, Urgency};
use crate::error::{GetError, Refused, Said, SaidList};
use crate::gate::Gate;
use crate::id::BlockId;
use crate::origin::Expected;
use crate::source::{Source, SourceStats};
use crate::standing::Rank;
use crate::workers::Workers;

pub use followed::WeakSources;

/// Most sources that one list may have.
pub const MAX_SOURCES: usize = 16;
/// Tries for one block at the same time: bounds what hedging can cost.
const MAX_AT_ONCE: usize = 3;
/// When the patience with all of them has been over for so long, one more is made: stalled sources, however many, must
/// not hide one that works.
const OVERDUE: Duration = Duration::from_secs(2);
/// Blocks that the sources of one mount are asked for at the same time, from the most urgent class on. Read-ahead leaves
/// a quarter free, a profile two and the background three, so that an on-demand read never waits behind a full house of them.
const MAX_BLOCKS: [usize; Class::COUNT] = [32, 24, 16, 8];
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
    /// Replaced as a whole, so that whoever reads it holds its lock for the time of a reference count.
    now: watch::Sender<Listed>,
    gate: Gate,
    workers: Workers,
}

/// What a list has at one time.
type Listed = Arc<[Arc<Source>]>;

/// Why a source was not added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddError {
    /// One with the same spec is there.
    #[error("it is asked already")]
    Present,
    /// The list is full.
    #[error("{MAX_SOURCES} sources are asked already: remove one first")]
    Full,
}

/// Why a source was not removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RemoveError {
    /// No source has this spec.
    #[error("it is not one of the sources: list them first")]
    Absent,
    /// Nothing would be left to ask.
    #[error(
        "it is the only one, and without it what is not in the cache cannot be read: add another one first, or use --force"
    )]
    Last,
}

impl Sources {
    /// A list in the order given.
    pub fn new(sources: impl IntoIterator<Item = Arc<Source>>) -> Sources {
        Sources(Arc::new(List {
            now: watch::Sender::new(sources.into_iter().collect()),
            gate: Gate::new(MAX_BLOCKS),
            workers: Workers::new(),
        }))
    }

    /// Adds a source, to be asked after those that are there. Reads that pause ask it at once.
    pub fn add(&self, source: Arc<Source>) -> Result<(), AddError> {
        self.change(|listed| {
            if listed.iter().any(|there| there.spec() == source.spec()) {
                return Err(AddError::Present);
            }
            if listed.len() >= MAX_SOURCES {
                return Err(AddError::Full);
            }
            *listed = listed.iter().cloned().chain([Arc::clone(&source)]).collect();
            Ok(())
        })
    }

    /// Takes a source out of the list, if it is there and others are. What it was asked it may still answer.
    pub fn remove(&self, spec: &str) -> Result<(), RemoveError> {
        self.take_out(spec, |others| if others == 0 { Err(RemoveError::Last) } else { Ok(()) })
    }

    /// The same, and it may be the last one: what is not in the cache is not found then.
    pub fn remove_even_last(&self, spec: &str) -> Result<(), RemoveError> {
        self.take_out(spec, |_| Ok(()))
    }

    fn take_out(
        &self,
        spec: &str,
        may: impl FnOnce(usize) -> Result<(), RemoveError>,
    ) -> Result<(), RemoveError> {
        self.change(|listed| {
            let index = listed.iter().position(|source| **source.spec() == *spec);
            let index = index.ok_or(RemoveError::Absent)?;
            may(listed.len() - 1)?;
            *listed = [&listed[..index], &listed[index + 1..]].concat().into();
            Ok(())
        })
    }

    fn change<E>(&self, change: impl FnOnce(&mut Listed) -> Result<(), E>) -> Result<(), E> {
        let mut outcome = None;
        self.0.now.send_if_modified(|listed| outcome.insert(change(listed)).is_ok());
        outcome.expect("the change was made or refused")
    }

    /// The sources that are in the list now, in order.
    pub fn list(&self) -> Arc<[Arc<Source>]> {
        Arc::clone(&self.0.now.borrow())
    }

    /// The counters of every source, in order.
    pub fn snapshot(&self) -> Vec<SourceStats> {
        self.list().iter().map(|source| source.snapshot()).collect()
    }

    /// Says that the flist `root` is about to be opened, to the first remote source at hand that is any faster for
    /// knowing it. What is returned is held until the flist is open.
    pub fn expect(&self, root: &BlockId) -> Option<Expected> {
        let listed = self.list();
        let mut at_hand = listed.iter().filter(|source| source.is_remote() && source.rank() == Rank::AtHand);
        at_hand.find_map(|source| source.expect(root))
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
        // What is under way when the time is over is part of the answer.
        let mut persist = std::pin::pin!(self.persist(id, urgency));
        match tokio::time::timeout_at(deadline.into(), persist.as_mut()).await {
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
        let mut view = View::new(&self.0.now);
        let (mut asked, mut answers) = usable(view.known.iter());
        loop {
            // Each rank is taken once: other reads change it, and a key that changes while it sorts is a panic.
            asked.sort_by_cached_key(|source| source.rank());
            let round = {
                // Who pauses holds no place: others may have sources that work.
                let _place = self.0.gate.enter(urgency).await;
                self.race(id, urgency, asked, &mut view).await
            };
            let refused = match round {
                Ok(found) => return Ok(found),
                Err(refused) => refused,
            };
            let (mut again, settled): (Answers, Answers) =
                refused.into_iter().partition(|(source, refused)| source.is_remote() && refused.may_pass());
            answers.extend(settled);
            if !again.is_empty() {
                // The one that can be asked first decides; those that want more peace answer so themselves.
                let peace = again.iter().map(|(source, _)| source.peace().unwrap_or_default()).min();
                let pause = pauses.next().unwrap_or_default().max(peace.unwrap_or_default());
                tracing::debug!(%id, sources = again.len(), ?pause, "no source gave the block: asking again");
                tokio::select! {
                    () = sleep(pause) => {}
                    () = view.changed() => {}
                }
            }
            let fresh = view.take_up();
            answers.extend(again.extract_if(.., |(source, _)| !is_in(&view.known, source)));
            asked = again.into_iter().map(|(source, _)| source).chain(fresh).collect();
            if asked.is_empty() {
                return Err(GetError::from_answers(id, said(answers).collect()));
            }
        }
    }

    /// What goes wrong with sources now.
    pub(crate) fn trouble(&self) -> SaidList {
        let listed = self.list();
        let trouble =
            listed.iter().filter_map(|source| Some((Arc::clone(source), source.trouble_or_silence()?)));
        said(trouble).collect()
    }

    /// Reads part of a block, unproven, from the first source that can; none when that does not work at once.
    pub(crate) async fn read_range(
        &self,
        id: BlockId,
        range: Range<u64>,
        urgency: &Urgency,
    ) -> Option<Bytes> {
        let source = self.list().iter().find(|source| source.reads_ranges()).cloned()?;
        let _place = self.0.gate.enter(urgency).await;
        source.read_range(id, range).await
    }

    /// Bytes around a missing block that are worth fetching with it, at the source that will be asked.
    pub fn carries(&self) -> u64 {
        self.list().iter().min_by_key(|source| source.rank()).map_or(0, |source| source.carries())
    }

    /// Whether the source that will be asked is next door.
    pub fn are_near(&self) -> bool {
        self.list().iter().min_by_key(|source| source.rank()).is_none_or(|source| source.is_near())
    }

    /// Tells two lists apart for as long as both live.
    pub(crate) fn identity(&self) -> usize {
        Arc::as_ptr(&self.0).addr()
    }

    /// Asks `sources` once each, in order, then those that are added meanwhile; what all of them answered when none gave
    /// the block.
    async fn race(
        &self,
        id: BlockId,
        urgency: &Urgency,
        sources: Vec<Arc<Source>>,
        view: &mut View,
    ) -> Result<(VerifiedBlock, Arc<Source>), Answers> {
        let mut waiting = VecDeque::from(sources);
        let mut tries = FuturesUnordered::new();
        let mut answers = Answers::new();
        let mut hedge_at = tokio::time::Instant::now();
        // When the patience with every try is over, and how many tries there may be: those that stall do not count.
        let (mut all_late_at, mut most) = (hedge_at, MAX_AT_ONCE);
        loop {
            let next_at = if tries.len() < most { hedge_at } else { all_late_at + OVERDUE };
            let due = tries.is_empty() || next_at <= tokio::time::Instant::now();
            if due && let Some(source) = waiting.pop_front() {
                hedge_at = tokio::time::Instant::now() + source.patience();
                all_late_at = all_late_at.max(hedge_at);
                most = most.max(tries.len() + 1);
                tries.push(async move {
                    let outcome = source.fetch(id, urgency, &self.0.workers).await;
                    (source, outcome)
                });
            }
            if tries.is_empty() {
                return Err(answers);
            }
            let next_at = if tries.len() < most { hedge_at } else { all_late_at + OVERDUE };
            tokio::select! {
                Some((source, outcome)) = tries.next() => match outcome {
                    Ok(block) => return Ok((block, source)),
                    Err(refused) => {
                        answers.push((source, refused));
                        hedge_at = tokio::time::Instant::now();
                    }
                },
                () = sleep_until(next_at), if !waiting.is_empty() => {}
                () = view.changed() => waiting.extend(view.take_up()),
            }
        }
    }
}

/// The list as one read has seen it.
struct View {
    changes: watch::Receiver<Listed>,
    known: Listed,
}

impl View {
    fn new(list: &watch::Sender<Listed>) -> View {
        let mut changes = list.subscribe();
        let known = Arc::clone(&changes.borrow_and_update());
        View { changes, known }
    }

    /// Waits until the list is another one.
    async fn changed(&mut self) {
        if self.changes.changed().await.is_err() {
            // The read holds the list, so it does not go; and if it did, it would never change again.
            std::future::pending().await
        }
    }

    /// Looks again; the sources that are new.
    fn take_up(&mut self) -> Vec<Arc<Source>> {
        let now = Arc::clone(&self.changes.borrow_and_update());
        let fresh = now.iter().filter(|source| !is_in(&self.known, source)).cloned().collect();
        self.known = now;
        fresh
    }
}

/// The sources to ask, and the answer of those that are not asked. Who has lied too often is no worse than nobody.
fn usable<'a>(sources: impl IntoIterator<Item = &'a Arc<Source>>) -> (Vec<Arc<Source>>, Answers) {
    let (aside, usable): (Vec<_>, Vec<_>) =
        sources.into_iter().cloned().partition(|source| source.rank() == Rank::SetAside);
    match usable.is_empty() {
        true => (aside, Answers::new()),
        false => (usable, aside.into_iter().map(|source| (source, Refused::SetAside)).collect()),
    }
}

fn is_in(list: &[Arc<Source>], source: &Arc<Source>) -> bool {
    list.iter().any(|listed| Arc::ptr_eq(listed, source))
}

fn said(answers: impl IntoIterator<Item = (Arc<Source>, Refused)>) -> impl Iterator<Item = Said> {
    answers.into_iter().map(|(source, refused)| Said { spec: Arc::clone(source.spec()), refused })
}
