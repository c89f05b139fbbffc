//! What the processes of jobs use, from `/proc`: the one that was started, and all that are still in its group.

use std::collections::HashMap;

use rustix::param::{clock_ticks_per_second, page_size};
use schemars::JsonSchema;
use serde::Serialize;

/// Most processes that are looked at for one sum.
const TREE_MAX: u32 = 4096;

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
struct One {
    group: i32,
    usage: Usage,
}

impl Usage {
    /// Of one process.
    pub fn of(pid: i32) -> Self {
        let mut sum = Self::default();
        if let Some(One { usage, .. }) = One::parse(&read(pid, "stat")) {
            sum.add(usage, &read(pid, "status"), &read(pid, "io"));
        }
        sum
    }

    /// Of a process and all that descend from it.
    pub fn of_tree(pid: i32) -> Self {
        let (mut sum, mut left) = (Self::default(), vec![pid]);
        while let Some(pid) = left.pop() {
            if let Some(One { usage, .. }) = One::parse(&read(pid, "stat")) {
                sum.add(usage, &read(pid, "status"), &read(pid, "io"));
            }
            if sum.processes >= TREE_MAX {
                break;
            }
            // Of the first thread alone: what others started is missed.
            let children = read(pid, &format!("task/{pid}/children"));
            left.extend(children.split_ascii_whitespace().filter_map(|child| child.parse::<i32>().ok()));
        }
        sum
    }

    /// Of groups of processes, by the pid of their first. Looks at every process of the machine.
    pub fn of_groups(groups: &[i32]) -> HashMap<i32, Self> {
        let mut sums: HashMap<i32, Self> = groups.iter().map(|&group| (group, Self::default())).collect();
        if sums.is_empty() {
            return sums;
        }
        let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        for pid in processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok()) {
            let Some(One { group, usage }) = One::parse(&read(pid, "stat")) else { continue };
            if let Some(sum) = sums.get_mut(&group) {
                sum.add(usage, &read(pid, "status"), &read(pid, "io"));
            }
        }
        sums
    }

    /// With the percent of one processor, when it began this long ago.
    pub fn since(mut self, age_ms: u64) -> Self {
        self.cpu = self.cpu_time * 100_000.0 / age_ms.max(1) as f64;
        self
    }

    fn add(&mut self, one: Self, status: &str, io: &str) {
        let field = |text: &str, name: &str| {
            let value = text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?;
            value.parse::<u64>().ok()
        };
        self.cpu_time += one.cpu_time;
        self.rss += one.rss;
        self.vms += one.vms;
        self.swap += field(status, "VmSwap:").unwrap_or(0) * 1024;
        self.read += field(io, "read_bytes:").unwrap_or(0);
        self.written += field(io, "write_bytes:").unwrap_or(0);
        self.processes += 1;
    }
}

/// Of a process that ended on the way nothing is there.
fn read(pid: i32, file: &str) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default()
}

impl One {
    fn parse(stat: &str) -> Option<Self> {
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
        Some(Self { group: number(5)? as i32, usage })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_a_strange_name_is_read() {
        let stat =
            "7 (a) b (c) S 1 8 7 0 -1 4194560 123 0 0 0 50 30 15 5 20 0 1 0 100 8192 3 18446744073709551615";
        let One { group, usage } = One::parse(stat).unwrap();
        let seconds = 100.0 / clock_ticks_per_second() as f64;
        assert_eq!((group, usage.cpu_time, usage.vms), (8, seconds, 8192));
        assert_eq!(usage.rss, 3 * page_size() as u64);
        let mut sum = Usage::default();
        for _ in 0..2 {
            sum.add(
                usage.clone(),
                "Name:\tx\nVmSwap:\t     4 kB\n",
                "rchar: 1\nread_bytes: 10\nwrite_bytes: 20\n",
            );
        }
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
