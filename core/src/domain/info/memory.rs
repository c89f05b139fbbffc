//! The memory, from /proc/meminfo (proc_meminfo(5)).

use schemars::JsonSchema;
use serde::Serialize;

use super::{InfoError, read};

/// The memory of the node, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub struct Memory {
    /// All of it.
    pub total: u64,
    /// What programs could get without swapping.
    pub available: u64,
    /// What is neither free, nor buffers, nor cache.
    pub used: u64,
    /// `used` in percent of `total`.
    #[serde(rename = "usedPercent")]
    pub used_percent: f64,
    /// What nobody uses.
    pub free: u64,
    /// Used not long ago.
    pub active: u64,
    /// Used longer ago.
    pub inactive: u64,
    /// Always 0: no such thing in Linux.
    pub wired: u64,
    /// Raw block device cache.
    pub buffers: u64,
    /// Page cache and what of the slabs can be reclaimed.
    pub cached: u64,
    /// On its way to a disk.
    pub writeback: u64,
    /// To be written to a disk.
    pub dirty: u64,
    /// On its way to a disk by way of FUSE.
    pub writebacktmp: u64,
    /// tmpfs and shared memory.
    pub shared: u64,
    /// Structures of the kernel.
    pub slab: u64,
    /// Page tables.
    pub pagetables: u64,
    /// In memory and in swap.
    pub swapcached: u64,
    /// Swap space.
    #[serde(rename = "swapTotal")]
    pub swap_total: u64,
    /// Swap space that is free.
    #[serde(rename = "swapFree")]
    pub swap_free: u64,
}

/// The memory now.
pub fn memory() -> Result<Memory, InfoError> {
    parse(&read("/proc/meminfo")?).ok_or(InfoError::Incomplete("/proc/meminfo", "MemTotal"))
}

fn parse(text: &str) -> Option<Memory> {
    let mut memory = Memory::default();
    for line in text.lines() {
        let Some((key, value)) = line.split_once(':') else { continue };
        let kib = value.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0);
        let bytes = kib.saturating_mul(1024);
        match key {
            "MemTotal" => memory.total = bytes,
            "MemFree" => memory.free = bytes,
            "MemAvailable" => memory.available = bytes,
            "Buffers" => memory.buffers = bytes,
            "Cached" | "SReclaimable" => memory.cached = memory.cached.saturating_add(bytes),
            "SwapCached" => memory.swapcached = bytes,
            "Active" => memory.active = bytes,
            "Inactive" => memory.inactive = bytes,
            "Dirty" => memory.dirty = bytes,
            "Writeback" => memory.writeback = bytes,
            "WritebackTmp" => memory.writebacktmp = bytes,
            "Shmem" => memory.shared = bytes,
            "Slab" => memory.slab = bytes,
            "PageTables" => memory.pagetables = bytes,
            "SwapTotal" => memory.swap_total = bytes,
            "SwapFree" => memory.swap_free = bytes,
            _ => {}
        }
    }
    if memory.total == 0 {
        return None;
    }
    let not_used = memory.free.saturating_add(memory.buffers).saturating_add(memory.cached);
    memory.used = memory.total.saturating_sub(not_used);
    memory.used_percent = memory.used as f64 / memory.total as f64 * 100.0;
    Some(memory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_uses_less_than_it_has() {
        let memory = memory().unwrap();
        assert!(memory.used > 0 && memory.used < memory.total, "{memory:?}");
        assert!(memory.available <= memory.total, "{memory:?}");
    }

    #[test]
    fn used_is_what_no_cache_holds() {
        let memory = parse(
            "MemTotal:  1000 kB\nMemFree: 200 kB\nMemAvailable: 600 kB\nBuffers: 100 kB\nCached: 150 kB\n\
             SReclaimable: 50 kB\nSwapTotal: 10 kB\n",
        )
        .unwrap();
        assert_eq!(memory.total, 1000 << 10);
        assert_eq!(memory.cached, 200 << 10);
        assert_eq!(memory.used, 500 << 10);
        assert_eq!(memory.used_percent, 50.0);
    }

    #[test]
    fn a_file_without_a_total_says_nothing() {
        assert_eq!(parse("MemFree: 200 kB\n"), None);
    }
}
