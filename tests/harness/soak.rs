//! Everything at once, for as long as one likes: the engine under readers while networks, sources, caches and daemons fail and
//! change.
//!
//! Two machines with a daemon each mount images in both modes from servers, a node, a gateway and archives that misbehave. Readers check every byte: right
//! bytes, or `EIO` or `ETIMEDOUT` within the deadline, and never a hang. When the misbehaving stops, everything must become
//! readable again by itself, and in the end nothing may be left. What is done, and when, comes from one seed; what the
//! scheduler makes of it does not.

mod machine;
mod reader;
mod report;
mod servers;
mod weather;
mod world;

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

pub use report::Report;

use crate::{SplitMix64, namespace};
use machine::Machine;
use reader::Reader;
use world::World;

/// Daemons, each with a cache of its own.
const MACHINES: usize = 2;
/// Threads that read each mount.
const READERS: usize = 2;
/// What `--deadline` says of a read, in seconds.
const DEADLINE: u64 = 6;
/// A read that takes longer hangs. In mode kernel one that spans two of EROFS' requests has a deadline for each; the rest is
/// for the scheduler of a crowded machine.
const HANGS: Duration = Duration::from_secs(60);
/// How long everything may take to be well again when nothing misbehaves any more: sources that lied are asked again after
/// half a minute, and may rest as long.
const RECOVERS: Duration = Duration::from_secs(150);

/// How to run it.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// How long things misbehave.
    pub length: Duration,
    /// What decides how.
    pub seed: u64,
}

/// Runs it, in a mount namespace of its own: whoever on this machine makes one meanwhile would keep our mounts in it.
pub fn run(options: Options) -> Report {
    namespace::own_mounts();
    let report = Report::new(options.seed);
    let world = World::new();
    let machines: Vec<Machine> = (0..MACHINES).map(|_| Machine::new(&world)).collect();
    let homes: Vec<_> = machines.iter().map(|machine| machine.home().to_owned()).collect();
    storm(options, &world, &machines, &report);
    // All are unmounted before the first one is looked at: the number of a connection that went may be another machine's.
    report.guard("the end", || {
        machines.iter().for_each(Machine::unmounts_everything);
        machines.iter().for_each(Machine::leaves_nothing);
    });
    drop(machines);
    let left: Vec<_> = homes.into_iter().filter(|home| home.exists()).collect();
    if !left.is_empty() {
        report.violation(format!("files are left: {left:?}"));
    }
    report
}

fn storm(options: Options, world: &World, machines: &[Machine], report: &Report) {
    let (calm, over) = (AtomicBool::new(false), AtomicBool::new(false));
    let mut rng = SplitMix64::new(options.seed);
    let spots: Vec<_> = machines.iter().flat_map(Machine::spots).collect();
    let readers: Vec<Reader<'_>> = spots
        .iter()
        .flat_map(|spot| std::iter::repeat_n(*spot, READERS))
        .map(|spot| Reader::new(world, spot, rng.next_u64()))
        .collect();
    std::thread::scope(|scope| {
        for reader in &readers {
            scope.spawn(|| report.guard("a reader", || reader.read_until(&over, report)));
        }
        let (weather_seed, calm, over) = (rng.next_u64(), &calm, &over);
        scope.spawn(move || {
            report.guard("the weather", || weather::change(world, weather_seed, calm, report))
        });
        let troubled: Vec<_> = machines
            .iter()
            .map(|machine| {
                let seed = rng.next_u64();
                scope.spawn(move || report.guard("a machine", || machine.is_troubled(seed, calm, report)))
            })
            .collect();
        let until = Instant::now() + options.length;
        let mut next_line = Instant::now() + Duration::from_secs(60);
        while Instant::now() < until && !report.has_violations() {
            std::thread::sleep(Duration::from_millis(200));
            watch(&readers, machines, report);
            if Instant::now() > next_line {
                next_line += Duration::from_secs(60);
                eprintln!("{}", report.line());
            }
        }
        calm.store(true, SeqCst);
        let patience = Instant::now() + RECOVERS;
        while !troubled.iter().all(|one| one.is_finished()) && Instant::now() < patience {
            std::thread::sleep(Duration::from_millis(100));
            watch(&readers, machines, report);
        }
        let machines_well = || {
            world.heal();
            machines.iter().for_each(|machine| machine.is_well_by(Instant::now() + RECOVERS, report));
        };
        report.guard("recovery", machines_well);
        over.store(true, SeqCst);
    });
}

/// Ends it all when a reader hangs: a thread in the kernel ends no other way.
fn watch(readers: &[Reader<'_>], machines: &[Machine], report: &Report) {
    for reader in readers {
        if let Some(what) = reader.hangs_for(HANGS) {
            report.violation(format!("HANGS: {what}"));
            machines.iter().for_each(Machine::abort);
        }
    }
}
