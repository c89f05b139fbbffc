//! What the processes of jobs use, from `/proc`: the one that was started, and all that are still in its group.

use std::collections::{HashMap, HashSet};

use rustix::param::{clock_ticks_per_second, page_size};
use schemars::JsonSchema;
use serde::Serialize;

use super::meter::{Grown, Sight};

/// Most processes that are looked at for one sum.
const TREE_MAX: usize = 4096;

/// What the processes of a job use now. All zero when they have ended meanwhile.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub struct Usage {
    /// Percent of one processor, on average since the start.
    pub cpu: f64,
    /// Seconds of processor time, with those of children that have ended.
    pub cpu_time: f64,
    /// Bytes in memory.
    pub rss: u64,
    /// Bytes of address space.
    pub vms: u64,
    /// Bytes swapped out.
    pub swap: u64,
    /// Bytes that were read from disks.
    pub read: u64,
    /// Bytes that were written to disks.
    pub written: u64,
    /// How many processes they are.
    pub processes: u32,
}

/// One process.
#[derive(Debug)]
pub(super) struct One {
    pid: i32,
    parent: i32,
    group: i32,
    /// When it was started, and what it has used of processors, in ticks.
    started: u64,
    ticks: u64,
    usage: Usage,
}

impl Usage {
    /// Of one process.
    pub fn of(pid: i32) -> Self {
        Self::sum(One::look(pid).as_slice())
    }

    /// Of a process and all that descend from it.
    pub fn of_tree(pid: i32) -> Self {
        let (mut ones, mut left) = (Vec::new(), vec![pid]);
        while let Some(pid) = left.pop() {
            ones.extend(One::look(pid));
            if ones.len() >= TREE_MAX {
                break;
            }
            // Of the first thread alone: what others started is missed.
            let children = read(pid, &format!("task/{pid}/children"));
            left.extend(children.split_ascii_whitespace().filter_map(|child| child.parse::<i32>().ok()));
        }
        Self::sum(&ones)
    }

    /// Of groups of processes, by the pid of their first. Looks at every process of the machine.
    pub fn of_groups(groups: &[i32]) -> HashMap<i32, Self> {
        let groups: HashSet<i32> = groups.iter().copied().collect();
        members(&groups).into_iter().map(|(group, ones)| (group, Self::sum(&ones))).collect()
    }

    pub(super) fn sum(ones: &[One]) -> Self {
        let mut sum = Self::default();
        for One { usage, .. } in ones {
            sum.cpu_time += usage.cpu_time;
            sum.rss += usage.rss;
            sum.vms += usage.vms;
            sum.swap += usage.swap;
            sum.read += usage.read;
            sum.written += usage.written;
            sum.processes += 1;
        }
        sum
    }

    /// The same, with what was used since the beginning by all that ever were there.
    pub(super) fn with(self, [ticks, read, written]: Grown) -> Self {
        Self { cpu_time: ticks as f64 / clock_ticks_per_second() as f64, read, written, ..self }
    }

    /// With the percent of one processor, when it began this long ago.
    pub fn since(mut self, age_ms: u64) -> Self {
        self.cpu = self.cpu_time * 100_000.0 / age_ms.max(1) as f64;
        self
    }
}

/// The processes of groups, by the pid of their first. Looks at every process of the machine.
pub(super) fn members(groups: &HashSet<i32>) -> HashMap<i32, Vec<One>> {
    let mut members: HashMap<i32, Vec<One>> = groups.iter().map(|&group| (group, Vec::new())).collect();
    if members.is_empty() {
        return members;
    }
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    for pid in processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok()) {
        let Some(one) = One::parse(pid, &read(pid, "stat")) else { continue };
        if let Some(ones) = members.get_mut(&one.group) {
            ones.push(one.with(&read(pid, "status"), &read(pid, "io")));
        }
    }
    members
}

/// Of a process that ended on the way nothing is there.
fn read(pid: i32, file: &str) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default()
}

impl One {
    fn look(pid: i32) -> Option<Self> {
        Some(Self::parse(pid, &read(pid, "stat"))?.with(&read(pid, "status"), &read(pid, "io")))
    }

    fn parse(pid: i32, stat: &str) -> Option<Self> {
        // The name may hold anything; fields are counted after its last parenthesis, the third (state) is first.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        let number = |n: usize| fields.get(n - 3).and_then(|field| field.parse::<u64>().ok());
        // Its own, and of children that it waited for.
        let ticks = number(14)? + number(15)? + number(16)? + number(17)?;
        let usage = Usage {
            cpu_time: ticks as f64 / clock_ticks_per_second() as f64,
            vms: number(23)?,
            rss: number(24)? * page_size() as u64,
            ..Usage::default()
        };
        let [parent, group] = [number(4)? as i32, number(5)? as i32];
        Some(Self { pid, parent, group, started: number(22)?, ticks, usage })
    }

    /// With what the other files say.
    fn with(mut self, status: &str, io: &str) -> Self {
        let field = |text: &str, name: &str| {
            let value = text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?;
            value.parse::<u64>().ok()
        };
        self.usage.swap = field(status, "VmSwap:").unwrap_or(0) * 1024;
        self.usage.read = field(io, "read_bytes:").unwrap_or(0);
        self.usage.written = field(io, "write_bytes:").unwrap_or(0);
        self
    }

    /// What a meter reads.
    pub(super) fn sight(&self) -> Sight {
        let (pid, parent, started) = (self.pid, self.parent, self.started);
        Sight { pid, parent, started, grown: [self.ticks, self.usage.read, self.usage.written] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_a_strange_name_is_read() {
        let stat =
            "7 (a) b (c) S 1 8 7 0 -1 4194560 123 0 0 0 50 30 15 5 20 0 1 0 100 8192 3 18446744073709551615";
        let io = "rchar: 1\nread_bytes: 10\nwrite_bytes: 20\n";
        let one = || One::parse(7, stat).unwrap().with("Name:\tx\nVmSwap:\t     4 kB\n", io);
        let (One { group, usage, .. }, seconds) = (one(), 100.0 / clock_ticks_per_second() as f64);
        assert_eq!((group, usage.cpu_time, usage.vms), (8, seconds, 8192));
        assert_eq!(usage.rss, 3 * page_size() as u64);
        let Sight { pid, parent, started, grown } = one().sight();
        assert_eq!((pid, parent, started, grown), (7, 1, 100, [100, 10, 20]));
        let sum = Usage::sum(&[one(), one()]);
        assert_eq!((sum.swap, sum.read, sum.written, sum.processes), (8192, 20, 40, 2));
        assert_eq!(sum.since(1000).cpu, 2.0 * seconds * 100.0);
    }

    #[test]
    fn the_group_of_this_process_uses_something_and_one_that_is_gone_nothing() {
        let group = rustix::process::getpgrp().as_raw_pid();
        let used = Usage::of_groups(&[group, i32::MAX]);
        assert!(used[&group].rss > 0 && used[&group].processes > 0);
        assert_eq!(used[&i32::MAX], Usage::default());
    }
}
