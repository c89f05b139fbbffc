//! Which processes belong to which job or service: a look at every process there is, and the end of a whole one.
//!
//! What the spawner starts has a mark that all its descendants inherit, into whatever session or group they go and whoever
//! becomes their parent: the soft limit of `RLIMIT_RTTIME` (getrlimit(2)), microseconds of a class of scheduling that nobody is in,
//! so large that it limits nothing. Who has lost it, as behind `su`, whose PAM sets all limits anew, belongs where its group
//! does, or its parent. Everybody descends from the spawner, as it is a subreaper.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::Read;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::sys::text;

/// Bits of the number in a mark. Above are those that tell the marks of one spawner from those of others.
const SLOT_BITS: u32 = 40;
/// How often more of a crowd is looked for, which forks meanwhile: among all processes, and among those made last.
const STOPS: usize = 8;
const CHASES: usize = 1000;
/// More than what is read of a file about a process.
const TEXT: usize = 4096;
/// The number of what has lost all that tells to whom it belongs.
pub const STRAYS: u64 = 0;

/// The marks of one spawner.
#[derive(Clone, Copy)]
pub struct Marks(u64);

impl Marks {
    /// Some that nobody else has: a node may run in a job of another.
    pub fn new() -> std::io::Result<Self> {
        let mut random = [0; 8];
        // getrandom(2) waits only before the kernel has any randomness at all.
        // SAFETY: the buffer is a local of this length.
        let read = unsafe { libc::getrandom(random.as_mut_ptr().cast(), random.len(), 0) };
        if read != random.len() as isize {
            return Err(std::io::Error::last_os_error());
        }
        // Large enough to be no limit, and less than RLIM_INFINITY also as a signed number.
        Ok(Self((u64::from_ne_bytes(random) >> 2 | 1 << 61) >> SLOT_BITS))
    }

    /// That of a number.
    pub fn of(self, slot: u64) -> u64 {
        self.0 << SLOT_BITS | (slot & ((1 << SLOT_BITS) - 1))
    }

    fn slot(self, mark: u64) -> Option<u64> {
        (mark >> SLOT_BITS == self.0).then_some(mark & ((1 << SLOT_BITS) - 1))
    }
}

/// The processes of one job or service.
#[derive(Default)]
pub struct Crowd {
    /// How many they and their threads are.
    pub threads: u64,
    pids: Vec<One>,
}

/// One process.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct One {
    pid: i32,
    parent: i32,
    group: i32,
    threads: u64,
    /// In ticks since the boot: with the pid it is nobody else's.
    started: u64,
}

impl One {
    fn read(pid: i32) -> Option<Self> {
        read(pid, "stat", Self::parse)
    }

    /// A line of proc_pid_stat(5).
    fn parse(stat: &str) -> Option<Self> {
        let pid = stat.split(' ').next()?.parse().ok()?;
        // The name may hold anything; fields are counted after its last parenthesis, the third (state) is first.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        let field = |n: usize| fields.get(n - 3).copied();
        Some(Self {
            pid,
            parent: field(4)?.parse().ok()?,
            group: field(5)?.parse().ok()?,
            threads: field(20)?.parse().ok()?,
            started: field(22)?.parse().ok()?,
        })
    }

    /// Nobody else is meant, whatever has ended since: a pid may be taken again.
    fn send(&self, signal: Signal) {
        let held = Pid::from_raw(self.pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        if let Some(held) = held
            && Self::read(self.pid).is_some_and(|now| now.started == self.started)
        {
            // It fails only when it has ended.
            let _ = pidfd_send_signal(held, signal);
        }
    }
}

/// All that descends from this process, by the number of whom it belongs to; some of those are known by the pid of their first.
pub fn crowds(marks: Marks, firsts: &HashMap<i32, u64>) -> HashMap<u64, Crowd> {
    gather(std::process::id() as i32, pids().filter_map(One::read), firsts, |pid| marks.slot(mark(pid)?))
}

/// All there are.
fn pids() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// One read of a file about a process; of one that ended on the way nothing is there.
fn read<T>(pid: i32, file: &str, parse: impl Fn(&str) -> Option<T>) -> Option<T> {
    let mut text = [0; TEXT];
    let length = File::open(format!("/proc/{pid}/{file}")).ok()?.read(&mut text).ok()?;
    parse(&String::from_utf8_lossy(&text[..length]))
}

fn gather(
    own: i32,
    all: impl Iterator<Item = One>,
    firsts: &HashMap<i32, u64>,
    marked: impl Fn(i32) -> Option<u64>,
) -> HashMap<u64, Crowd> {
    let mut children: HashMap<i32, Vec<One>> = HashMap::new();
    for one in all {
        children.entry(one.parent).or_default().push(one);
    }
    let mut found: HashMap<u64, Crowd> = HashMap::new();
    let first = |one: &One| firsts.get(&one.pid).or(firsts.get(&one.group)).copied().unwrap_or(STRAYS);
    // Taken out one by one: it ends, whatever was read while processes came and went.
    let ours = children.remove(&own).unwrap_or_default();
    let mut below: Vec<(u64, One)> = ours.into_iter().map(|one| (first(&one), one)).collect();
    while let Some((above, one)) = below.pop() {
        let slot = marked(one.pid).unwrap_or(above);
        below.extend(children.remove(&one.pid).unwrap_or_default().into_iter().map(|child| (slot, child)));
        let crowd = found.entry(slot).or_default();
        crowd.threads += one.threads;
        crowd.pids.push(one);
    }
    found
}

/// Ends these whole. `last` gives the pid that was handed out last.
pub fn kill(slots: &[u64], marks: Marks, firsts: &HashMap<i32, u64>, last: impl Fn() -> Option<i32>) {
    let marked = kill_marked(slots, marks, last);
    // Those without a mark are stopped first, until no more are found, so that nobody forks meanwhile.
    let mut others = HashSet::new();
    for _ in 0..STOPS {
        let mut found = crowds(marks, firsts);
        let ones = slots.iter().filter_map(|slot| found.remove(slot)).flat_map(|crowd| crowd.pids);
        let before = others.len();
        for one in ones.filter(|one| !marked.contains(&one.pid)) {
            if others.insert((one.pid, one.started)) {
                one.send(Signal::STOP);
            }
        }
        if others.len() == before {
            break;
        }
    }
    for (pid, started) in others {
        One { pid, started, parent: 0, group: 0, threads: 0 }.send(Signal::KILL);
    }
}

/// Kills those with the marks of these numbers: all there are, and then those that were made since, in the order in which they
/// were, which goes faster than making them. As the kernel ends a fork whose process is killed, all that one has made are there
/// before it is killed, and come after it: when no more have been made, none is left.
fn kill_marked(slots: &[u64], marks: Marks, last: impl Fn() -> Option<i32>) -> HashSet<i32> {
    let kills = |pid: &i32| kill_one(*pid, slots, marks).is_some();
    let mut at = last();
    let mut killed: HashSet<i32> = pids().filter(kills).collect();
    let pid_max = text::value("/proc/sys/kernel/pid_max").unwrap_or(i32::MAX);
    for _ in 0..CHASES {
        let (Some(from), Some(to)) = (at, last()) else { break };
        // They begin anew behind the highest.
        let made =
            if from <= to { (from + 1..=to).chain(0..0) } else { (from + 1..=pid_max).chain(1..to + 1) };
        let new: Vec<i32> = made.filter(kills).collect();
        if new.is_empty() {
            break;
        }
        killed.extend(new);
        at = Some(to);
    }
    killed
}

/// Kills a process if it has one of these marks. The descriptor is there before the mark is read, so nobody else is meant.
fn kill_one(pid: i32, slots: &[u64], marks: Marks) -> Option<()> {
    let held = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
    let slot = marks.slot(mark(pid)?)?;
    slots.contains(&slot).then(|| pidfd_send_signal(held, Signal::KILL).ok())?
}

/// The line `Max realtime timeout` of proc_pid_limits(5), which all may read; prlimit(2) needs rights that root may lack.
fn mark(pid: i32) -> Option<u64> {
    read(pid, "limits", |limits| {
        let line = limits.lines().find_map(|line| line.strip_prefix("Max realtime timeout"))?;
        line.split_ascii_whitespace().next()?.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(pid: i32, parent: i32, group: i32, threads: u64) -> One {
        One { pid, parent, group, threads, started: 0 }
    }

    #[test]
    fn who_lost_its_mark_belongs_to_its_group_or_its_parent() {
        let all = [
            // A job, with a child in a group of its own.
            one(10, 1, 10, 1),
            one(11, 10, 11, 3),
            one(12, 11, 11, 1),
            // What another one lost to the spawner: marked, by its group, by neither.
            one(21, 1, 21, 2),
            one(22, 21, 22, 1),
            one(23, 1, 20, 1),
            one(30, 1, 30, 9),
            // Nobody of ours.
            one(41, 2, 10, 9),
        ];
        let marked = |pid| [(10, 5), (21, 6)].into_iter().find(|(of, _)| *of == pid).map(|(_, slot)| slot);
        let found = gather(1, all.into_iter(), &[(10, 5), (20, 6)].into(), marked);
        let sorted = |slot: u64| {
            let mut pids: Vec<i32> = found[&slot].pids.iter().map(|one| one.pid).collect();
            pids.sort();
            (found[&slot].threads, pids)
        };
        assert_eq!(found.len(), 3);
        assert_eq!(sorted(5), (5, vec![10, 11, 12]));
        assert_eq!(sorted(6), (4, vec![21, 22, 23]));
        assert_eq!(sorted(STRAYS), (9, vec![30]));
    }

    #[test]
    fn marks_say_their_number_and_whose_they_are_and_limit_nothing() {
        let (ours, others) = (Marks::new().unwrap(), Marks::new().unwrap());
        for slot in [1, 77, (1 << SLOT_BITS) - 1] {
            assert_eq!(ours.slot(ours.of(slot)), Some(slot));
            assert_eq!(others.slot(ours.of(slot)), None);
            assert!(ours.of(slot) >= 1 << 61 && ours.of(slot) < 1 << 62, "{:x}", ours.of(slot));
        }
        // No limit is no mark.
        assert_eq!(ours.slot(u64::MAX), None);
    }

    #[test]
    fn this_process_is_read_whatever_its_name() {
        let stat = "7 (a) b (c) S 1 8 7 0 -1 4194560 123 0 0 0 50 30 15 5 20 0 3 0 100 8192 3";
        assert!(One::parse(stat).unwrap() == One { started: 100, ..one(7, 1, 8, 3) });
        let pid = std::process::id() as i32;
        assert_eq!(One::read(pid).unwrap().pid, pid);
    }
}
