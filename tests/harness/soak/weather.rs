//! Servers and the ways to them, as they are in the world: good, slow, broken, lying, gone, and soon otherwise.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use super::report::Report;
use super::servers::{Archive, Served};
use super::world::World;
use crate::origin::{FAULTS, Fault, Link};
use crate::rpc::Trick;
use crate::{Origin, Rpc, SplitMix64};

/// What a node does wrong when it is asked for a block.
const TRICKS: [Trick; 10] = [
    Trick::Status(500),
    Trick::Status(403),
    Trick::Status(429),
    Trick::Hangs,
    Trick::Mumbles,
    Trick::Cuts(0),
    Trick::Half,
    Trick::Endless("and on"),
    Trick::Lies,
    Trick::Html,
];

/// Changes the weather at a random source after random times, until it is `calm`.
pub(super) fn change(world: &World, seed: u64, calm: &AtomicBool, report: &Report) {
    let mut rng = SplitMix64::new(seed);
    while !calm.load(SeqCst) {
        match rng.below(6) {
            0 => node(&world.node, &mut rng),
            1 => gateway(&world.gateway, &mut rng),
            2 => archive(&world.images[rng.below(world.images.len() as u64) as usize].archive, &mut rng),
            _ => one(&world.origins[rng.below(world.origins.len() as u64) as usize], &mut rng),
        }
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

fn node(node: &Rpc, rng: &mut SplitMix64) {
    node.heal();
    let trick = TRICKS[rng.below(TRICKS.len() as u64) as usize];
    match rng.below(5) {
        0..=1 => {}
        2..=3 => node.fails("block/get", trick, 1 + rng.below(40) as usize),
        _ => node.fails("block/get", trick, usize::MAX),
    }
}

fn gateway(gateway: &Served, rng: &mut SplitMix64) {
    gateway.heals();
    match rng.below(4) {
        0..=1 => {}
        2 => gateway.hangs(),
        _ => gateway.dies(),
    }
}

fn archive(archive: &Archive, rng: &mut SplitMix64) {
    archive.heals();
    match rng.below(4) {
        0..=1 => {}
        2 => archive.is_cut(rng.below(256)),
        _ => archive.is_away(),
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
