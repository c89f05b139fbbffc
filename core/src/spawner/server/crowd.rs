//! How many processes a job or a service has with all that it started, and the end of one that has too many.
//!
//! One number tells whether anybody can have so many: that of all threads of the machine. It is read ten times a second; only
//! when it is as large as the lowest bound, all processes are looked at. That takes one part in fifty of a processor at most,
//! unless there is half as much again as at the last look. Starting a short process costs one system call more.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use super::children::Children;
use super::reserve::First;
use super::tree::{self, Marks};
use crate::spawner::protocol::{Event, TooMany};

/// Between two readings of that number.
const PAUSE: Duration = Duration::from_millis(100);
/// Looks take one part in so many of a processor's time.
const SHARE: u32 = 50;
/// How long who had too many is looked for, with all that it forked while it was killed.
const HUNT: Duration = Duration::from_secs(10);
/// Of how many that have ended the names are known, for what they left behind.
const ENDED_MAX: usize = 4096;

/// See the module's text.
pub struct Crowds {
    pub(super) marks: Marks,
    /// proc_loadavg(5).
    loads: File,
    read_at: Instant,
    look_at: Instant,
    /// The number at the last look.
    seen: u64,
    /// The lowest and the highest bound that one ever had.
    bounds: Option<(u64, u64)>,
    /// Who had too many, and until when it is looked for.
    hunted: BTreeMap<u64, Instant>,
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
        let (marks, loads, now) = (Marks::new()?, File::open("/proc/loadavg")?, Instant::now());
        let (hunted, ended) = (BTreeMap::new(), VecDeque::new());
        Ok(Self { marks, loads, read_at: now, look_at: now, seen: 0, bounds: None, hunted, ended })
    }

    /// One with this bound is there.
    pub(super) fn add(&mut self, most: u64) {
        let (lowest, highest) = self.bounds.unwrap_or((most, most));
        self.bounds = Some((lowest.min(most), highest.max(most)));
    }

    /// It has ended, and may have left something behind.
    pub(super) fn remember(&mut self, slot: u64, tag: &str, most: u64) {
        if self.ended.len() == ENDED_MAX {
            self.ended.pop_front();
        }
        self.ended.push_back(Ended { slot, tag: tag.into(), most });
    }

    /// Of the whole machine. Who cannot know looks.
    fn threads(&self) -> u64 {
        self.load(3).and_then(|field| field.split_once('/')?.1.parse().ok()).unwrap_or(u64::MAX)
    }

    /// The pid that was handed out last.
    fn last_pid(&self) -> Option<i32> {
        self.load(4)?.parse().ok()
    }

    /// A field, the fourth of which is `running/all`.
    fn load(&self, field: usize) -> Option<String> {
        let mut line = [0; 128];
        let read = self.loads.read_at(&mut line, 0).ok()?;
        Some(std::str::from_utf8(&line[..read]).ok()?.split_ascii_whitespace().nth(field)?.into())
    }
}

impl Children {
    /// How long until the next look; none when nobody ever had a bound.
    pub fn next_look(&self) -> Option<Duration> {
        self.crowds.bounds.map(|_| self.crowds.read_at.saturating_duration_since(Instant::now()))
    }

    /// Looks at all, if it is time, and ends who has too many.
    pub fn look(&mut self, outbox: &mut VecDeque<Event>) {
        let (now, crowds) = (Instant::now(), &mut self.crowds);
        let Some((lowest, highest)) = crowds.bounds.filter(|_| now >= crowds.read_at) else { return };
        crowds.read_at = now + PAUSE;
        crowds.hunted.retain(|_, until| now < *until);
        let threads = crowds.threads();
        let is_due = now >= crowds.look_at || threads / 3 > crowds.seen / 2;
        if crowds.hunted.is_empty() && (threads <= lowest || !is_due) {
            return;
        }
        // Without, it takes longer; it was said at the beginning.
        let _first = First::go();
        let began = own_time();
        self.count(highest, outbox);
        self.crowds.seen = threads;
        // Not by the clock: on a machine with too many processes, that goes while others have the processor.
        let took = own_time().saturating_sub(began);
        self.crowds.look_at = Instant::now() + took * SHARE;
        // Meanwhile who was killed ends, and is reaped here.
        self.crowds.read_at = Instant::now() + took.max(PAUSE);
    }

    fn count(&mut self, highest: u64, outbox: &mut VecDeque<Event>) {
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
                    let (tag, most) = ended.map_or(("jobs", highest), |ended| (&ended.tag, ended.most));
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
            tree::kill(&slots, self.crowds.marks, &self.by_pid, || self.crowds.last_pid());
        }
    }
}

/// What this process has used of processors.
fn own_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.cast_unsigned(), time.tv_nsec as u32)
}
