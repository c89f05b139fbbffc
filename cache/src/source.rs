//! One origin with its record: what it gave, how long it takes, and what it lied about.

use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use lru::LruCache;
use parking_lot::Mutex;
use serde::Serialize;
use tokio::time::Instant;

use crate::block::{VerifiedBlock, WrongBytes};
use crate::class::Urgency;
use crate::error::Refused;
use crate::id::BlockId;
use crate::origin::{Expected, FetchError, Origin};
use crate::standing::{Rank, Standing};
use crate::workers::Workers;

/// Ids remembered per source as lied about. A source that lies more often forgets its oldest lies, and is caught anew.
const LIES: NonZeroUsize = NonZeroUsize::new(4096).expect("not zero");
/// How long a source is not asked again for a block that it had wrong. Then it may have been repaired, and one more lie
/// costs no more than the first.
const LIE_AGE: Duration = Duration::from_secs(30);
/// After this a try is given up, so that a stalled source does not hold its place for ever.
const TRY_LIMIT: Duration = Duration::from_secs(10);
/// Bounds of [`Source::patience`]: what a healthy LAN never needs, and what nobody waits for when there is another.
const PATIENCE_MIN: Duration = Duration::from_millis(50);
const PATIENCE_MAX: Duration = Duration::from_secs(1);

/// A source that answers faster is next door: nothing is gained by fetching more than is asked for.
const NEAR: Duration = Duration::from_millis(3);
/// Bounds of [`Source::carries`], in bytes: what is worth a round trip of any length, and what nobody's link or cache minds.
const CARRIED_MIN: f64 = 256.0 * 1024.0;
const CARRIED_MAX: f64 = 768.0 * 1024.0;

/// An origin in use.
pub struct Source {
    origin: Arc<dyn Origin>,
    spec: Arc<str>,
    bytes: AtomicU64,
    requests: AtomicU64,
    wrong: AtomicU64,
    errors: AtomicU64,
    latency: Mutex<Option<Latency>>,
    lies: Mutex<LruCache<BlockId, Instant>>,
    standing: Standing,
    tries: Mutex<Tries>,
}

/// The tries under way.
#[derive(Default)]
struct Tries {
    count: usize,
    /// Since when there was always one without an answer to any.
    since: Option<Instant>,
}

/// One of them.
struct Try<'a>(&'a Mutex<Tries>);

impl Try<'_> {
    fn begin(tries: &Mutex<Tries>) -> Try<'_> {
        let mut now = tries.lock();
        now.count += 1;
        now.since.get_or_insert_with(Instant::now);
        Try(tries)
    }

    /// There was an answer, so whoever waits now has waited from here on.
    fn answered(&self) {
        self.0.lock().since = Some(Instant::now());
    }
}

impl Drop for Try<'_> {
    fn drop(&mut self) {
        let mut now = self.0.lock();
        now.count -= 1;
        if now.count == 0 {
            now.since = None;
        }
    }
}

/// What a source did since it was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct SourceStats {
    /// Its spec string.
    pub spec: String,
    /// Stored bytes received, right or wrong.
    pub bytes: u64,
    /// Blocks asked for.
    pub requests: u64,
    /// Answers that were not the block.
    pub wrong: u64,
    /// Failures and time-outs; not having a block is none.
    pub errors: u64,
    /// What went wrong since it last answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

impl Source {
    /// A source without history.
    pub fn new(origin: Arc<dyn Origin>) -> Source {
        Source {
            spec: origin.spec().into(),
            origin,
            bytes: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            wrong: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            latency: Mutex::new(None),
            lies: Mutex::new(LruCache::new(LIES)),
            standing: Standing::new(),
            tries: Mutex::default(),
        }
    }

    /// Its spec string.
    pub fn spec(&self) -> &Arc<str> {
        &self.spec
    }

    /// Whether its blocks go to the disk tier.
    pub(crate) fn keep(&self) -> bool {
        self.origin.keep()
    }

    /// The counters now.
    pub fn snapshot(&self) -> SourceStats {
        SourceStats {
            spec: self.spec.to_string(),
            bytes: self.bytes.load(Relaxed),
            requests: self.requests.load(Relaxed),
            wrong: self.wrong.load(Relaxed),
            errors: self.errors.load(Relaxed),
            trouble: self.trouble().map(|trouble| trouble.told()),
        }
    }

    /// Whether others run it, behind a network.
    pub(crate) fn is_remote(&self) -> bool {
        self.origin.is_remote()
    }

    /// When it is asked, compared with others.
    pub(crate) fn rank(&self) -> Rank {
        self.standing.rank()
    }

    /// How long it wants to be left in peace yet.
    pub(crate) fn peace(&self) -> Option<Duration> {
        self.standing.peace()
    }

    /// What went wrong with it since it last answered.
    pub(crate) fn trouble(&self) -> Option<Refused> {
        self.standing.trouble()
    }

    /// The same, and that it says nothing at all to those who wait for it.
    pub(crate) fn trouble_or_silence(&self) -> Option<Refused> {
        let silent = || self.tries.lock().since.map(|since| since.elapsed());
        self.trouble().or_else(|| silent().filter(|time| *time >= self.patience()).map(Refused::TimedOut))
    }

    /// How long to wait for it before the next source is asked too.
    pub(crate) fn patience(&self) -> Duration {
        self.latency.lock().map_or(PATIENCE_MAX, |latency| latency.bound()).clamp(PATIENCE_MIN, PATIENCE_MAX)
    }

    /// Bytes that the way to it carries while one answer is under way, to be fetched beside what somebody waits for: they
    /// cost about as much time as the wait itself. None when it is near.
    pub(crate) fn carries(&self) -> u64 {
        let latency = *self.latency.lock();
        latency.filter(|_| self.is_remote()).map_or(0, |latency| latency.carries())
    }

    /// Whether it is next door: on this machine, or known to answer as fast.
    pub(crate) fn is_near(&self) -> bool {
        !self.is_remote() || self.latency.lock().is_some_and(|latency| latency.is_near())
    }

    /// Whether it gives parts of blocks.
    pub(crate) fn reads_ranges(&self) -> bool {
        self.origin.reads_ranges()
    }

    /// Reads part of a block, unproven; none when it does not work at once. What is wrong with the source the fetch of the
    /// whole block will tell.
    pub(crate) async fn read_range(&self, id: BlockId, range: Range<u64>) -> Option<Bytes> {
        self.requests.fetch_add(1, Relaxed);
        let len = range.end - range.start;
        let bytes =
            tokio::time::timeout(self.patience(), self.origin.read_range(&id, range)).await.ok()?.ok()?;
        self.bytes.fetch_add(bytes.len() as u64, Relaxed);
        (bytes.len() as u64 == len).then_some(bytes)
    }

    /// Tells it that an flist is about to be opened: [`Origin::expect`].
    pub(crate) fn expect(&self, root: &BlockId) -> Option<Expected> {
        self.origin.expect(root)
    }

    /// Fetches and verifies one block.
    pub(crate) async fn fetch(
        &self,
        id: BlockId,
        urgency: &Urgency,
        workers: &Workers,
    ) -> Result<VerifiedBlock, Refused> {
        if self.lies.lock().get(&id).is_some_and(|told| told.elapsed() < LIE_AGE) {
            return Err(Refused::LiedBefore);
        }
        if let Some(wait) = self.peace() {
            return Err(FetchError::Busy(wait).into());
        }
        let attempt = self.standing.attempt(self.patience());
        let outcome = self.fetch_and_verify(id, urgency, workers).await;
        attempt.end(outcome.as_ref().err());
        if let Err(refused) = &outcome {
            self.record(id, refused);
        }
        outcome
    }

    async fn fetch_and_verify(
        &self,
        id: BlockId,
        urgency: &Urgency,
        workers: &Workers,
    ) -> Result<VerifiedBlock, Refused> {
        self.requests.fetch_add(1, Relaxed);
        let (asked, before) = (Instant::now(), self.bytes.load(Relaxed));
        let one = Try::begin(&self.tries);
        let answer = tokio::time::timeout(TRY_LIMIT, self.origin.fetch(&id)).await;
        one.answered();
        drop(one);
        let block = answer.map_err(|_| Refused::TimedOut(TRY_LIMIT))??;
        let len = block.len() as u64;
        let meanwhile = self.bytes.fetch_add(len, Relaxed) + len - before;
        if !block.came_along() {
            Latency::note(&mut self.latency.lock(), asked.elapsed(), meanwhile);
        }
        if block.id() != id {
            return Err(WrongBytes { want: id, got: block.id(), len: block.len() }.into());
        }
        Ok(workers.run(urgency, || block.verify()).await?)
    }

    fn record(&self, id: BlockId, refused: &Refused) {
        if refused.is_lie() {
            self.wrong.fetch_add(1, Relaxed);
            self.lies.lock().put(id, Instant::now());
            if self.is_remote() && self.standing.lied() {
                tracing::warn!(source = %self.spec, %id, "too many wrong blocks: set aside for ten minutes");
            }
        }
        match refused {
            Refused::Fetch(FetchError::Unavailable(_) | FetchError::Busy(_) | FetchError::Unfit(_))
            | Refused::TimedOut(_) => {
                self.errors.fetch_add(1, Relaxed);
            }
            Refused::Fetch(FetchError::NotFound | FetchError::TooLarge(_))
            | Refused::Wrong(_)
            | Refused::LiedBefore
            | Refused::SetAside => {}
        }
    }
}

/// Smoothed answer time and its deviation, as TCP estimates its retransmission timeout (RFC 6298); and what the way carries, as
/// BBR estimates it: the shortest answer time, and the highest rate, both of which are forgotten slowly.
#[derive(Clone, Copy)]
struct Latency {
    mean: Duration,
    deviation: Duration,
    shortest: Duration,
    /// Bytes a second.
    rate: f64,
}

impl Latency {
    /// An answer took `sample`, and so many bytes of any answers came `meanwhile`.
    fn note(slot: &mut Option<Latency>, sample: Duration, meanwhile: u64) {
        let rate_now = meanwhile as f64 / sample.as_secs_f64().max(1e-6);
        *slot = Some(match *slot {
            None => Latency { mean: sample, deviation: sample / 2, shortest: sample, rate: rate_now },
            Some(Latency { mean, deviation, shortest, rate }) => Latency {
                mean: mean * 7 / 8 + sample / 8,
                deviation: deviation * 3 / 4 + mean.abs_diff(sample) / 4,
                shortest: sample.min(shortest + shortest / 64),
                rate: rate_now.max(rate * 15.0 / 16.0),
            },
        });
    }

    fn is_near(&self) -> bool {
        self.shortest < NEAR
    }

    /// Up to twice what was carried so far, so that it grows until the way is full; then answers take longer, and it is less.
    fn carries(&self) -> u64 {
        if self.is_near() {
            return 0;
        }
        let shortest = self.shortest.as_secs_f64();
        let gain = (3.0 - self.mean.as_secs_f64() / shortest).clamp(0.5, 2.0);
        (self.rate * shortest * gain).clamp(CARRIED_MIN, CARRIED_MAX) as u64
    }

    /// Answers that take longer are rare.
    fn bound(&self) -> Duration {
        self.mean + self.deviation * 4
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(samples: &[(u64, u64)]) -> u64 {
        let mut latency = None;
        for (milliseconds, bytes) in samples {
            Latency::note(&mut latency, Duration::from_millis(*milliseconds), *bytes);
        }
        latency.map_or(0, |latency| latency.carries())
    }

    #[test]
    fn a_source_next_door_is_not_asked_for_more_and_a_far_one_for_as_much_as_it_carries() {
        assert_eq!(after(&[(1, 80_000); 10]), 0);
        assert_eq!(after(&[(50, 1_000)]), CARRIED_MIN as u64);
        // 10 MB/s for 50 ms, twice.
        let half_full = after(&[(50, 250_000)]);
        assert!((499_999..=500_001).contains(&half_full), "{half_full}");
        assert_eq!(after(&[(50, 5_000_000)]), CARRIED_MAX as u64);
    }

    #[test]
    fn where_answers_begin_to_wait_for_each_other_less_is_fetched_along() {
        let calm = after(&[(100, 200_000); 20]);
        let mut samples = vec![(100, 200_000)];
        samples.extend([(300, 600_000); 20]);
        let crowded = after(&samples);
        assert!(crowded < calm * 3 / 4, "{crowded} of {calm}");
    }

    #[test]
    fn what_was_carried_once_is_forgotten_slowly() {
        let mut samples = vec![(50, 2_000_000)];
        samples.extend([(50, 10_000); 200]);
        assert_eq!(after(&samples), CARRIED_MIN as u64);
    }
}
