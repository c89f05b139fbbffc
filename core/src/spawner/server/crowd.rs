//! How many processes a job or a service has with all that it started, and the end of one that has too many.
//!
//! One number tells whether anybody can have so many: that of all threads of the machine, which `watch` reads; only when it is
//! as large as the lowest bound, all processes are looked at. That takes one part in fifty of a processor at most,
//! unless there is half as much again as at the last look. Starting a short process costs one system call more.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use super::children::Children;
use super::tree::{self, Marks};
use super::watch::Watch;
use crate::spawner::protocol::{Event, TooMany};

/// Between two looks for who had too many, at least.
const PAUSE: Duration = Duration::from_millis(20);
/// Looks take one part in so many of a processor's time.
const SHARE: u32 = 50;
/// How long who had too many is looked for without a rest. Longer lives only what hangs in the kernel.
const HUNT: Duration = Duration::from_secs(10);
/// Of how many that have ended the names are known, for what they left behind.
const ENDED_MAX: usize = 4096;

/// See the module's text.
pub struct Crowds {
    pub(super) marks: Marks,
    /// None while nobody ever had a bound.
    watch: Option<Watch>,
    /// The highest bound that one ever had.
    highest: u64,
    /// Who had too many, and until when it is looked for without a rest.
    hunted: BTreeMap<u64, Instant>,
    /// The next look for those.
    again: Option<Instant>,
    ended: VecDeque<Ended>,
}

/// One that has ended.
struct Ended {
    slot: u64,
    tag: String,
    most: u64,
}

impl Crowds {
    /// Nobody has a bound yet.
    pub fn new() -> io::Result<Self> {
        let (marks, hunted, ended) = (Marks::new()?, BTreeMap::new(), VecDeque::new());
        Ok(Self { marks, watch: None, highest: 0, hunted, again: None, ended })
    }

    /// One with this bound is about to be there.
    pub(super) fn add(&mut self, most: u64) -> io::Result<()> {
        self.highest = self.highest.max(most);
        match &self.watch {
            Some(watch) => watch.lower(most),
            None => self.watch = Some(Watch::start(most)?),
        }
        Ok(())
    }

    /// It has ended, and may have left something behind.
    pub(super) fn remember(&mut self, slot: u64, tag: &str, most: u64) {
        if self.ended.len() == ENDED_MAX {
            self.ended.pop_front();
        }
        self.ended.push_back(Ended { slot, tag: tag.into(), most });
    }
}

impl Children {
    /// Readable when it is time to look.
    pub fn watch(&self) -> Option<BorrowedFd<'_>> {
        // While somebody is looked for, the time is known.
        self.crowds.watch.as_ref().filter(|_| self.crowds.again.is_none()).map(AsFd::as_fd)
    }

    /// How long until the next look for who had too many.
    pub fn next_look(&self) -> Option<Duration> {
        self.crowds.again.map(|again| again.saturating_duration_since(Instant::now()))
    }

    /// Looks again for who had too many, if it is time.
    pub fn look_again(&mut self, outbox: &mut VecDeque<Event>) {
        if self.crowds.again.is_some_and(|again| Instant::now() >= again) {
            self.look(outbox);
        }
    }

    /// Looks at all processes, and ends who has too many.
    pub fn look(&mut self, outbox: &mut VecDeque<Event>) {
        let Some(seen) = self.crowds.watch.as_ref().map(Watch::threads) else { return };
        let began = own_time();
        self.count(outbox);
        // Not by the clock: on a machine with too many processes, that goes while others have the processor.
        let took = own_time().saturating_sub(began);
        let now = Instant::now();
        let crowds = &mut self.crowds;
        // Meanwhile who was killed ends, and is reaped here.
        crowds.again = crowds.hunted.values().any(|until| now < *until).then(|| now + took.max(PAUSE));
        if let (None, Some(watch)) = (crowds.again, &crowds.watch) {
            // Who is still there is judged anew at the next look: a number can be that of others by then.
            crowds.hunted.clear();
            watch.rest(seen, took * SHARE);
        }
    }

    fn count(&mut self, outbox: &mut VecDeque<Event>) {
        let found = tree::crowds(self.crowds.marks, &self.by_pid);
        for (&slot, crowd) in &found {
            let had = crowd.threads;
            if self.crowds.hunted.contains_key(&slot) {
                continue;
            }
            match self.by_slot.get_mut(&slot).filter(|child| child.exit.is_none()) {
                Some(child) => match child.most {
                    Some(most) if had > most => child.too_many = Some(TooMany { had, most }),
                    Some(_) | None => continue,
                },
                None => {
                    let ended = self.crowds.ended.iter().find(|ended| ended.slot == slot);
                    let (tag, most) =
                        ended.map_or(("jobs", self.crowds.highest), |ended| (&ended.tag, ended.most));
                    if had <= most {
                        continue;
                    }
                    outbox.push_back(Event::Cleared { tag: tag.into(), too_many: TooMany { had, most } });
                }
            }
            self.crowds.hunted.insert(slot, Instant::now() + HUNT);
        }
        // One that is gone is no more looked for: its number may be that of the strays.
        self.crowds.hunted.retain(|slot, _| found.contains_key(slot));
        if !self.crowds.hunted.is_empty() {
            let slots: Vec<u64> = self.crowds.hunted.keys().copied().collect();
            let last = || self.crowds.watch.as_ref().and_then(Watch::last_pid);
            tree::kill(&slots, self.crowds.marks, &self.by_pid, last);
        }
    }
}

/// What this process has used of processors.
fn own_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.cast_unsigned(), time.tv_nsec as u32)
}
