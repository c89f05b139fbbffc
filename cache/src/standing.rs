//! How a source stands with us: at hand, at rest after failures, left in peace as it asked, or set aside for lies.
//!
//! The rules, which decide only the order in which sources are asked, and whether at all:
//!
//! - After [`FAILURES`] failures in a row, whatever the blocks, it rests for a while that doubles with every further one: others
//!   are asked before it. One try after the rest decides; any answer, also "does not have it", ends the row.
//! - A try that another source overtook counts as a failure, else a source that stalls would cost every read its patience.
//! - A remote source that gave [`LIES`] wrong blocks is set aside: not asked at all while there is another one.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::error::Refused;
use crate::origin::FetchError;

/// Failures in a row before a source rests.
const FAILURES: u32 = 5;
/// Its first rest and its longest.
const REST_MIN: Duration = Duration::from_secs(1);
const REST_MAX: Duration = Duration::from_secs(30);
/// Wrong blocks before a remote source is set aside, and for how long.
const LIES: u32 = 3;
const ASIDE: Duration = Duration::from_secs(600);
/// Most that a source may ask to be left in peace.
const PEACE_MAX: Duration = Duration::from_secs(10);

/// When a source is asked; the smaller the sooner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rank {
    /// Whenever its turn comes.
    AtHand,
    /// After those at hand.
    Resting,
    /// Only when there is no other.
    SetAside,
}

/// The record behind a [`Rank`].
pub(crate) struct Standing(Mutex<State>);

struct State {
    failures: u32,
    next_rest: Duration,
    /// Tries from before this do not make the rest longer: they failed together with those that caused it.
    rested_at: Option<Instant>,
    rests_until: Option<Instant>,
    peace_until: Option<Instant>,
    lies: u32,
    aside_until: Option<Instant>,
    trouble: Option<Refused>,
}

impl Standing {
    pub(crate) fn new() -> Standing {
        Standing(Mutex::new(State {
            failures: 0,
            next_rest: REST_MIN,
            rested_at: None,
            rests_until: None,
            peace_until: None,
            lies: 0,
            aside_until: None,
            trouble: None,
        }))
    }

    /// Its rank now.
    pub(crate) fn rank(&self) -> Rank {
        let (state, now) = (self.0.lock(), Instant::now());
        let within = |until: Option<Instant>| until.is_some_and(|until| now < until);
        if within(state.aside_until) {
            Rank::SetAside
        } else if within(state.rests_until) || within(state.peace_until) {
            Rank::Resting
        } else {
            Rank::AtHand
        }
    }

    /// How long it wants to be left in peace yet.
    pub(crate) fn peace(&self) -> Option<Duration> {
        let until = self.0.lock().peace_until?;
        Some(until.saturating_duration_since(Instant::now())).filter(|left| !left.is_zero())
    }

    /// What went wrong with it since it last answered.
    pub(crate) fn trouble(&self) -> Option<Refused> {
        self.0.lock().trouble.clone()
    }

    /// Begins a try, which counts as failed when it is given up after `patience` without an outcome.
    pub(crate) fn attempt(&self, patience: Duration) -> Attempt<'_> {
        let now = Instant::now();
        let mut state = self.0.lock();
        // The first after a rest decides for all: until it has, the others go on asking elsewhere first.
        if state.rests_until.is_some_and(|until| until <= now) {
            state.rests_until = Some(now + state.next_rest);
        }
        Attempt { standing: self, began: now, patience, over: false }
    }

    fn answered(&self) {
        let mut state = self.0.lock();
        state.failures = 0;
        state.next_rest = REST_MIN;
        state.rests_until = None;
        state.trouble = None;
    }

    fn failed(&self, began: Instant, why: Refused) {
        let mut state = self.0.lock();
        state.trouble = Some(why);
        state.failures = state.failures.saturating_add(1);
        if state.failures < FAILURES || state.rested_at.is_some_and(|at| began <= at) {
            return;
        }
        let now = Instant::now();
        state.rested_at = Some(now);
        state.rests_until = Some(now + state.next_rest);
        state.next_rest = (state.next_rest * 2).min(REST_MAX);
    }

    fn asked_for_peace(&self, wait: Duration, why: Refused) {
        let mut state = self.0.lock();
        state.peace_until = Some(Instant::now() + wait.min(PEACE_MAX));
        state.trouble = Some(why);
    }

    /// It gave a wrong block. Says whether that was one too many.
    pub(crate) fn lied(&self) -> bool {
        let mut state = self.0.lock();
        state.lies += 1;
        let too_many = state.lies >= LIES;
        if too_many {
            state.lies = 0;
            state.aside_until = Some(Instant::now() + ASIDE);
        }
        too_many
    }
}

/// A try under way.
pub(crate) struct Attempt<'a> {
    standing: &'a Standing,
    began: Instant,
    patience: Duration,
    over: bool,
}

impl Attempt<'_> {
    /// Takes note of how it ended; `None` is well.
    pub(crate) fn end(mut self, refused: Option<&Refused>) {
        self.over = true;
        match refused {
            None => self.standing.answered(),
            Some(Refused::Fetch(FetchError::Busy(wait))) => {
                self.standing.asked_for_peace(*wait, Refused::Fetch(FetchError::Busy(*wait)));
            }
            Some(
                why @ (Refused::Fetch(FetchError::Unavailable(_) | FetchError::Unfit(_))
                | Refused::TimedOut(_)),
            ) => {
                self.standing.failed(self.began, why.clone());
            }
            // What it gave is judged elsewhere; that it gives something is good.
            Some(
                Refused::Fetch(FetchError::NotFound | FetchError::TooLarge(_))
                | Refused::Wrong(_)
                | Refused::LiedBefore
                | Refused::SetAside,
            ) => self.standing.answered(),
        }
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        let waited = self.began.elapsed();
        if !self.over && waited >= self.patience {
            self.standing.failed(self.began, Refused::TimedOut(waited));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure() -> Refused {
        FetchError::unavailable("connection reset").into()
    }

    fn fail(standing: &Standing) {
        standing.attempt(Duration::ZERO).end(Some(&failure()));
    }

    async fn pass(seconds: f64) {
        tokio::time::advance(Duration::from_secs_f64(seconds)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn five_failures_in_a_row_are_a_rest_that_doubles_up_to_half_a_minute() {
        let standing = Standing::new();
        for _ in 0..4 {
            fail(&standing);
        }
        standing.attempt(Duration::ZERO).end(Some(&FetchError::NotFound.into()));
        for _ in 0..4 {
            fail(&standing);
        }
        assert_eq!(standing.rank(), Rank::AtHand, "an answer ended the first row");
        for rest in [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0] {
            fail(&standing);
            assert_eq!(standing.rank(), Rank::Resting);
            assert!(standing.trouble().is_some());
            pass(rest - 0.001).await;
            assert_eq!(standing.rank(), Rank::Resting, "{rest}");
            pass(0.002).await;
            assert_eq!(standing.rank(), Rank::AtHand, "{rest}");
        }
        standing.attempt(Duration::ZERO).end(None);
        assert!(standing.trouble().is_none());
        fail(&standing);
        assert_eq!(standing.rank(), Rank::AtHand, "all is forgiven");
    }

    #[tokio::test(start_paused = true)]
    async fn tries_that_fail_together_are_one_reason_to_rest() {
        let standing = Standing::new();
        let tries: Vec<Attempt> = (0..40).map(|_| standing.attempt(Duration::ZERO)).collect();
        pass(3.0).await;
        for attempt in tries {
            attempt.end(Some(&failure()));
        }
        pass(1.001).await;
        assert_eq!(standing.rank(), Rank::AtHand);
    }

    #[tokio::test(start_paused = true)]
    async fn one_try_after_the_rest_decides_for_all() {
        let standing = Standing::new();
        for _ in 0..5 {
            fail(&standing);
        }
        pass(1.001).await;
        let first = standing.attempt(Duration::ZERO);
        assert_eq!(standing.rank(), Rank::Resting);
        first.end(None);
        assert_eq!(standing.rank(), Rank::AtHand);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_given_up_after_its_patience_failed_and_before_it_did_not() {
        let standing = Standing::new();
        for _ in 0..10 {
            drop(standing.attempt(Duration::from_secs(1)));
        }
        assert_eq!(standing.rank(), Rank::AtHand);
        for _ in 0..5 {
            let attempt = standing.attempt(Duration::from_secs(1));
            pass(1.1).await;
            drop(attempt);
        }
        assert_eq!(standing.rank(), Rank::Resting);
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_left_in_peace_as_it_asks_but_ten_seconds_at_most() {
        let standing = Standing::new();
        let busy = |seconds| Refused::from(FetchError::Busy(Duration::from_secs(seconds)));
        standing.attempt(Duration::ZERO).end(Some(&busy(3)));
        assert_eq!((standing.peace(), standing.rank()), (Some(Duration::from_secs(3)), Rank::Resting));
        pass(3.001).await;
        assert_eq!((standing.peace(), standing.rank()), (None, Rank::AtHand));
        standing.attempt(Duration::ZERO).end(Some(&busy(86_400)));
        assert_eq!(standing.peace(), Some(Duration::from_secs(10)));
    }

    #[tokio::test(start_paused = true)]
    async fn three_lies_set_it_aside_for_ten_minutes() {
        let standing = Standing::new();
        assert!(!standing.lied() && !standing.lied());
        assert_eq!(standing.rank(), Rank::AtHand);
        assert!(standing.lied());
        pass(599.0).await;
        assert_eq!(standing.rank(), Rank::SetAside);
        pass(1.001).await;
        assert_eq!(standing.rank(), Rank::AtHand);
    }
}
