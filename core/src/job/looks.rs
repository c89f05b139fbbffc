//! Looks at what jobs use, again and again: one look at all processes of the machine serves every job that wants one then.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::param::clock_ticks_per_second;
use rustix::time::{ClockId, clock_gettime};
use tokio::time::{Instant, sleep_until};

use super::meter::Meter;
use super::usage::{One, Usage, members};
use crate::log::now_ms;

/// Looks are taken at multiples of this: so jobs meet.
const TICK: Duration = Duration::from_secs(1);

/// See the module's text.
#[derive(Debug)]
pub struct Looks {
    began: Instant,
    /// Who is watched, by the pid of the first of its group.
    groups: Mutex<HashSet<i32>>,
    last: tokio::sync::Mutex<Option<(u32, Arc<Look>)>>,
}

/// All groups at one time.
#[derive(Debug)]
struct Look {
    at_ms: u64,
    ticks: u64,
    groups: HashMap<i32, Vec<One>>,
}

/// One group that is watched, until this is dropped.
#[derive(Debug)]
pub struct Watch<'a> {
    looks: &'a Looks,
    group: i32,
    pause: Duration,
    meter: Meter,
}

impl Looks {
    /// None yet.
    pub fn new() -> Self {
        Self { began: Instant::now(), groups: Mutex::default(), last: tokio::sync::Mutex::default() }
    }

    /// Watches a group.
    pub fn watch(&self, group: i32, pause: Duration) -> Watch<'_> {
        self.groups.lock().insert(group);
        Watch { looks: self, group, pause, meter: Meter::default() }
    }

    /// The tick that is the nearest, this long from now.
    fn tick(&self, later: Duration) -> u32 {
        let time = self.began.elapsed() + later + TICK / 2;
        u32::try_from(time.as_nanos() / TICK.as_nanos()).unwrap_or(u32::MAX)
    }

    /// The look of this tick. Who comes first takes it, the others wait for it.
    async fn take(&self) -> Option<Arc<Look>> {
        let mut last = self.last.lock().await;
        let now = self.tick(Duration::ZERO);
        if let Some((tick, look)) = &*last
            && *tick == now
        {
            return Some(look.clone());
        }
        let groups = self.groups.lock().clone();
        let look = tokio::task::spawn_blocking(move || Look {
            at_ms: now_ms(),
            ticks: ticks(),
            groups: members(&groups),
        });
        let look = Arc::new(look.await.ok()?);
        *last = Some((now, look.clone()));
        Some(look)
    }
}

impl Watch<'_> {
    /// After its pause, what the group uses, and since when that is so; `None` when nobody is in it any more.
    pub async fn next(&mut self) -> Option<(u64, Usage)> {
        let tick = self.looks.tick(self.pause);
        sleep_until(self.looks.began + TICK.saturating_mul(tick)).await;
        let look = self.looks.take().await?;
        let ones = look.groups.get(&self.group).filter(|ones| !ones.is_empty())?;
        let used = self.meter.look(look.ticks, ones.iter().map(One::sight));
        Some((look.at_ms, Usage::sum(ones).with(used)))
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        self.looks.groups.lock().remove(&self.group);
    }
}

/// Since the machine was started, as the kernel counts the starts of processes.
fn ticks() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    let hz = clock_ticks_per_second();
    now.tv_sec as u64 * hz + now.tv_nsec as u64 * hz / 1_000_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_looks_in_one_tick_shares_a_look_and_who_is_gone_is_not_looked_at() {
        let group = rustix::process::getpgrp().as_raw_pid();
        let looks = Looks::new();
        let mut watches: Vec<Watch<'_>> = (0..3).map(|_| looks.watch(group, TICK)).collect();
        let mut strange = looks.watch(i32::MAX, TICK);
        let first = futures::future::join_all(watches.iter_mut().map(Watch::next)).await;
        let times: HashSet<u64> = first.iter().map(|found| found.as_ref().unwrap().0).collect();
        // On a machine that stands still for a moment, one may come in the next tick.
        assert!(times.len() < 3, "{times:?}");
        assert!(first.iter().all(|found| found.as_ref().unwrap().1.processes > 0));
        assert_eq!(strange.next().await, None);
        drop(strange);
        assert_eq!(*looks.groups.lock(), [group].into());
    }
}
