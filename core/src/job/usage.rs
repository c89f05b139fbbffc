//! What the process of a job uses, from `/proc`.

use rustix::param::{clock_ticks_per_second, page_size};
use schemars::JsonSchema;
use serde::Serialize;

/// Most processes that are looked at for one sum.
const TREE_MAX: usize = 4096;

/// What a process uses now. All zero when it has ended meanwhile.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub struct Usage {
    /// Percent of one processor, on average since its start.
    pub cpu: f64,
    /// Bytes in memory.
    pub rss: u64,
    /// Bytes of address space.
    pub vms: u64,
    /// Bytes swapped out.
    pub swap: u64,
}

impl Usage {
    /// Of a process that was started this long ago.
    pub fn of(pid: i32, age_ms: u64) -> Self {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        Self::parse(&stat, &status, age_ms).unwrap_or_default()
    }

    /// Of a process and all that descend from it, on average since it was started. What ends meanwhile is not counted.
    pub fn of_tree(pid: i32, age_ms: u64) -> Self {
        let (mut sum, mut left, mut seen) = (Self::default(), vec![pid], 0);
        while let Some(pid) = left.pop() {
            let usage = Self::of(pid, age_ms);
            sum.cpu += usage.cpu;
            sum.rss += usage.rss;
            sum.vms += usage.vms;
            sum.swap += usage.swap;
            seen += 1;
            if seen >= TREE_MAX {
                break;
            }
            // Of the first thread alone: what others started is missed.
            let children =
                std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
            left.extend(children.split_ascii_whitespace().filter_map(|child| child.parse::<i32>().ok()));
        }
        sum
    }

    fn parse(stat: &str, status: &str, age_ms: u64) -> Option<Self> {
        // The name may hold anything; fields are counted after its last parenthesis, the third (state) is first.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        let number = |n: usize| fields.get(n - 3).and_then(|field| field.parse::<u64>().ok());
        let seconds = (number(14)? + number(15)?) as f64 / clock_ticks_per_second() as f64;
        let swap = status.lines().find_map(|line| line.strip_prefix("VmSwap:"));
        let swap =
            swap.and_then(|line| line.trim().strip_suffix(" kB")).and_then(|kib| kib.parse::<u64>().ok());
        Some(Self {
            cpu: seconds * 100_000.0 / age_ms.max(1) as f64,
            vms: number(23)?,
            rss: number(24)? * page_size() as u64,
            swap: swap.unwrap_or(0) * 1024,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_a_strange_name_is_read() {
        let stat =
            "7 (a) b (c) S 1 7 7 0 -1 4194560 123 0 0 0 50 50 0 0 20 0 1 0 100 8192 3 18446744073709551615";
        let usage = Usage::parse(stat, "Name:\tx\nVmSwap:\t     4 kB\n", 1000).unwrap();
        let seconds = 100.0 / clock_ticks_per_second() as f64;
        assert_eq!((usage.cpu, usage.vms, usage.swap), (seconds * 100.0, 8192, 4096));
        assert_eq!(usage.rss, 3 * page_size() as u64);
        assert_eq!(Usage::of(-1, 1), Usage::default());
    }
}
