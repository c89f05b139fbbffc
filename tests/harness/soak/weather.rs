//! Servers and the ways to them, as they are in the world: good, slow, broken, lying, gone, and soon otherwise.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use super::report::Report;
use super::world::World;
use crate::origin::{FAULTS, Fault, Link};
use crate::{Origin, SplitMix64};

/// Changes the weather at a random server after random times, until it is `calm`.
pub(super) fn change(world: &World, seed: u64, calm: &AtomicBool, report: &Report) {
    let mut rng = SplitMix64::new(seed);
    while !calm.load(SeqCst) {
        let at = rng.below(world.origins.len() as u64) as usize;
        one(&world.origins[at], &mut rng);
        report.counts.weather.add(1);
        std::thread::sleep(Duration::from_millis(100 + rng.below(900)));
    }
    world.heal();
}

fn one(origin: &Origin, rng: &mut SplitMix64) {
    origin.up();
    origin.forget();
    let round_trip = Duration::from_millis([0, 1, 5, 60][rng.below(4) as usize]);
    let bytes_per_second = [None, None, Some(20_000_000), Some(2_000_000)][rng.below(4) as usize];
    origin.link(Link { round_trip, bytes_per_second });
    let percent = [5, 30, 100][rng.below(3) as usize];
    match rng.below(10) {
        0..=3 => origin.heal(),
        4..=6 => {
            let fault = any(rng);
            sometimes(origin, percent, rng.next_u64(), move |_| fault);
        }
        7..=8 => sometimes(origin, percent.min(30), rng.next_u64(), any),
        _ => origin.down(),
    }
}

fn any(rng: &mut SplitMix64) -> Fault {
    FAULTS[rng.below(FAULTS.len() as u64) as usize]
}

fn sometimes(
    origin: &Origin,
    percent: u64,
    seed: u64,
    fault: impl Fn(&mut SplitMix64) -> Fault + Send + 'static,
) {
    let rng = Mutex::new(SplitMix64::new(seed));
    origin.fails_where(move |_| {
        let mut rng = rng.lock().expect("nothing in here panics");
        (rng.below(100) < percent).then(|| fault(&mut rng))
    });
}
