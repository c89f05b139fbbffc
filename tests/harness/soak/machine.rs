//! A machine with a daemon, a cache and a few mounts, and what befalls them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::report::Report;
use super::world::World;
use super::{DEADLINE, SplitMix64, reader};
use crate::connections::{Connection, Connections};
use crate::{Flist, args, compare, mount_table, wait};

/// How long a daemon may take to end, and a connection to be gone.
const SOON: Duration = Duration::from_secs(60);
/// Budgets of the disk tier: from hardly anything to everything.
const BUDGETS: [&str; 4] = ["1M", "8M", "64M", "1G"];

/// A place to mount on.
pub(super) struct Spot {
    pub(super) dir: PathBuf,
    /// Which image.
    pub(super) image: usize,
    mode: &'static str,
    /// Counts changes: odd while nothing is to be expected of it.
    time: AtomicU64,
}

impl Spot {
    /// Since when it is mounted, if it is.
    pub(super) fn mounted(&self) -> Option<u64> {
        Some(self.time.load(SeqCst)).filter(|time| time % 2 == 0)
    }

    fn goes(&self) {
        if self.mounted().is_some() {
            self.time.fetch_add(1, SeqCst);
        }
    }

    fn comes(&self) {
        if self.mounted().is_none() {
            self.time.fetch_add(1, SeqCst);
        }
    }
}

/// The machine.
pub(super) struct Machine<'w> {
    world: &'w World,
    spots: Vec<Spot>,
    seen: Mutex<BTreeSet<Connection>>,
    connections: Connections,
    flist: Flist,
}

impl<'w> Machine<'w> {
    /// Two images in each mode, of which one is the same; nothing is mounted yet.
    pub(super) fn new(world: &'w World) -> Machine<'w> {
        let flist = Flist::new();
        let spot = |(number, mode)| {
            let (dir, image) = (flist.mountpoint(), number % world.images.len());
            Spot { dir, image, mode, time: AtomicU64::new(1) }
        };
        let spots = [(0, "fuse"), (1, "kernel"), (2, "fuse"), (0, "kernel")].map(spot);
        let connections = Connections::new(flist.home());
        Machine { world, spots: spots.into(), seen: Mutex::default(), connections, flist }
    }

    pub(super) fn home(&self) -> &Path {
        self.flist.home().path()
    }

    pub(super) fn spots(&self) -> impl Iterator<Item = &Spot> {
        self.spots.iter()
    }

    /// Something befalls it after random times, until all is `calm`.
    pub(super) fn is_troubled(&self, seed: u64, calm: &AtomicBool, report: &Report) {
        let mut rng = SplitMix64::new(seed);
        while !calm.load(SeqCst) && !report.has_violations() {
            let budget = BUDGETS[rng.below(BUDGETS.len() as u64) as usize];
            match rng.below(14) {
                0..=2 => {}
                3..=5 => self.change_sources(&mut rng, report),
                6 => self.evict(&["cache", "clear"], report),
                7..=8 => self.evict(&["cache", "gc", "--cache-size", budget], report),
                9 => self.evict(&["cache", "gc"], report),
                10 => self.kill(&mut rng, report),
                _ => self.umount(&self.spots[rng.below(self.spots.len() as u64) as usize]),
            }
            for spot in &self.spots {
                if spot.mounted().is_none() {
                    self.mount(spot, budget, &mut rng, report);
                }
            }
            self.weigh(report);
            std::thread::sleep(Duration::from_millis(50 + rng.below(900)));
        }
    }

    /// Everything is mounted and readable again by then, without help.
    pub(super) fn is_well_by(&self, limit: Instant, report: &Report) {
        let mut rng = SplitMix64::new(0);
        for spot in &self.spots {
            while spot.mounted().is_none() && Instant::now() < limit {
                self.mount(spot, "1G", &mut rng, report);
            }
            assert!(spot.mounted().is_some(), "{} cannot be mounted when all is well", spot.dir.display());
            let image = &self.world.images[spot.image];
            for (rel, expected) in &image.files {
                let bytes = loop {
                    match fs::read(spot.dir.join(rel)) {
                        Ok(bytes) => break bytes,
                        Err(error) if reader::is_trouble(&error) && Instant::now() < limit => {}
                        Err(error) => panic!("{} is not well again: {error}", spot.dir.join(rel).display()),
                    }
                    std::thread::sleep(Duration::from_millis(200));
                };
                assert!(bytes == *expected, "WRONG BYTES in {}", spot.dir.join(rel).display());
            }
            compare::assert_same(&image.source, &spot.dir);
        }
    }

    /// Unmounts what is mounted.
    pub(super) fn unmounts_everything(&self) {
        for spot in &self.spots {
            spot.goes();
            if mount_table::at(&spot.dir).is_some() {
                self.flist.ok(args!["umount", spot.dir]);
            }
        }
    }

    /// Panics when anything is left of what it had.
    pub(super) fn leaves_nothing(&self) {
        mount_table::assert_none_under(&self.flist.home().join("mnt-0"));
        let here = mount_table::under(self.home());
        assert!(here.iter().all(|mount| mount.kind == "fusectl"), "mounts are left: {here:#?}");
        wait::until("no process is left", SOON, || self.flist.processes().is_empty());
        let seen = self.seen.lock().expect("nothing in here panics").clone();
        let left = || seen.iter().filter(|one| self.connections.has(**one)).collect::<Vec<_>>();
        let until = Instant::now() + SOON;
        while !left().is_empty() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(50));
        }
        assert!(left().is_empty(), "FUSE connections are left: {:?}", left());
    }

    /// Ends its daemon and all that waits for it.
    pub(super) fn abort(&self) {
        for pid in self.flist.processes() {
            for connection in self.connections.of(pid) {
                self.connections.abort(connection);
            }
            // It may be gone by now.
            let _ = Pid::from_raw(pid).map(|pid| kill_process(pid, Signal::KILL));
        }
    }

    fn mount(&self, spot: &Spot, budget: &str, rng: &mut SplitMix64, report: &Report) {
        let mut from = self.world.sources(spot.image);
        rng.shuffle(&mut from);
        from.truncate(1 + rng.below(from.len() as u64) as usize);
        report.asks(&from);
        let (cid, deadline) = (&self.world.images[spot.image].cid, DEADLINE.to_string());
        let outcome = self.flist.run(args![
            "mount",
            cid,
            spot.dir,
            "--mode",
            spot.mode,
            "--from",
            from.join(","),
            "--deadline",
            deadline,
            "--cache-size",
            budget,
            "--cache-memory",
            "8M"
        ]);
        match outcome.code {
            0 => {
                report.counts.mounts.add(1);
                if let Some(pid) = self.daemon() {
                    self.seen.lock().expect("nothing in here panics").extend(self.connections.of(pid));
                }
                spot.comes();
            }
            // Nobody has its metadata at the moment.
            1 => report.counts.refused.add(1),
            _ => panic!("{outcome:#?}"),
        }
    }

    fn umount(&self, spot: &Spot) {
        spot.goes();
        if mount_table::at(&spot.dir).is_none() {
            return;
        }
        let outcome = self.flist.run(args!["umount", spot.dir]);
        if outcome.code != 0 {
            // A reader was on it.
            assert!(outcome.stderr.contains("in use"), "{outcome:#?}");
            self.flist.ok(args!["umount", "--lazy", spot.dir]);
        }
    }

    /// The daemon dies at once, and whoever mounts next finds what it left.
    fn kill(&self, rng: &mut SplitMix64, report: &Report) {
        let Some(daemon) = self.daemon() else { return };
        self.spots.iter().for_each(Spot::goes);
        // It may have ended by itself at this moment.
        let _ = Pid::from_raw(daemon).map(|pid| kill_process(pid, Signal::KILL));
        wait::for_the_end_of(daemon, SOON);
        report.counts.kills.add(1);
        if rng.below(2) == 0 {
            self.spots.iter().for_each(|spot| self.umount(spot));
        }
    }

    /// One comes or goes while its mount is read. The last one stays.
    fn change_sources(&self, rng: &mut SplitMix64, report: &Report) {
        let spot = &self.spots[rng.below(self.spots.len() as u64) as usize];
        if spot.mounted().is_none() {
            return;
        }
        let all = self.world.sources(spot.image);
        let spec = &all[rng.below(all.len() as u64) as usize];
        let verb = ["add", "rm"][rng.below(2) as usize];
        let outcome = self.flist.run(args!["source", verb, spot.dir, spec]);
        let refusals = ["asked already", "is not one of the sources", "--force"];
        // An archive that is cut or away is no source, and is named.
        let is_broken = spec.strip_prefix("car:").is_some_and(|path| outcome.stderr.contains(path));
        let is_refused =
            outcome.code == 1 && (is_broken || refusals.iter().any(|words| outcome.stderr.contains(words)));
        assert!(outcome.code == 0 || is_refused, "{outcome:#?}");
        report.counts.sources.add(u64::from(!is_refused));
    }

    fn evict(&self, command: &[&str], report: &Report) {
        let outcome = self.flist.run(command.iter().map(Into::into));
        // Between two daemons the folder may be locked by the one that is just ending.
        assert!(outcome.code == 0 || outcome.stderr.contains("in use"), "{outcome:#?}");
        report.counts.evictions.add(1);
    }

    fn daemon(&self) -> Option<i32> {
        self.flist.daemons().first().copied()
    }

    /// Takes note of the daemon's memory.
    fn weigh(&self, report: &Report) {
        let Some(pid) = self.daemon() else { return };
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let anonymous = status.lines().find_map(|line| line.strip_prefix("RssAnon:")?.strip_suffix("kB"));
        report.daemon_holds(anonymous.and_then(|kib| kib.trim().parse().ok()).unwrap_or_default());
    }
}
