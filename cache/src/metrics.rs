//! Every metric of the cache: name, unit and meaning, in one table. The exposition is the daemon's.

use crate::cache::{CacheStats, DiskState};

/// A metric and its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// Name, in the style of Prometheus: the unit last, `_total` for what only grows.
    pub name: &'static str,
    /// Meaning.
    pub help: &'static str,
    /// Value now.
    pub value: u64,
}

macro_rules! metrics {
    ($($constant:ident = $name:literal, $help:literal, |$stats:ident| $value:expr;)+) => {
        $(#[doc = $help] pub const $constant: &str = $name;)+

        /// All metrics of a cache.
        pub fn metrics(stats: &CacheStats) -> Vec<Metric> {
            vec![$({ let $stats = stats; Metric { name: $constant, help: $help, value: $value } }),+]
        }
    };
}

metrics! {
    MEMORY_BYTES = "g8_cache_memory_bytes", "Bytes in the memory tier.", |s| s.memory.bytes;
    MEMORY_BUDGET_BYTES = "g8_cache_memory_budget_bytes", "Most bytes of the memory tier.", |s| s.memory.budget;
    MEMORY_FRAMES = "g8_cache_memory_frames", "Decoded frames in the memory tier.", |s| s.memory.frames;
    MEMORY_BLOCKS = "g8_cache_memory_blocks", "Stored blocks in the memory tier.", |s| s.memory.blocks;
    MEMORY_HITS = "g8_cache_memory_hits_total", "Answers from the memory tier.", |s| s.hits.memory;
    DISK_HITS = "g8_cache_disk_hits_total", "Answers from the disk tier.", |s| s.hits.disk;
    SOURCE_HITS = "g8_cache_source_hits_total", "Answers from a source.", |s| s.hits.source;
    DISK_READY = "g8_cache_disk_ready", "1 when the disk tier works.", |s| u64::from(s.disk.state == DiskState::Ready);
    DISK_BYTES = "g8_cache_disk_bytes", "Bytes of the disk tier.", |s| s.disk.bytes;
    DISK_BUDGET_BYTES = "g8_cache_disk_budget_bytes", "Most bytes of the disk tier's files.", |s| s.disk.budget;
    DISK_ENTRIES = "g8_cache_disk_entries", "Frames in the disk tier, nearly.", |s| s.disk.entries;
    DISK_MISSES = "g8_cache_disk_misses_total", "Disk look-ups that gave nothing.", |s| s.disk.misses;
    DISK_DAMAGED = "g8_cache_disk_damaged_total", "Disk entries found damaged.", |s| s.disk.damaged;
    DISK_PUTS = "g8_cache_disk_puts_total", "Blocks put on disk or about to be, and second chances.", |s| s.disk.puts;
    DISK_SECOND_CHANCES = "g8_cache_disk_second_chances_total", "Frames put again when about to fall out.",
        |s| s.disk.second_chances;
    DISK_SKIPPED = "g8_cache_disk_skipped_total", "Blocks not put: no room, sick, or faster than the disk.",
        |s| s.disk.skipped;
    DISK_PUT_ERRORS = "g8_cache_disk_put_errors_total", "Failed puts and flushes.", |s| s.disk.put_errors;
    DISK_READ_ERRORS = "g8_cache_disk_read_errors_total", "Failed disk look-ups.", |s| s.disk.read_errors;
    DISK_HEALED = "g8_cache_disk_healed_total", "Times the database was opened again.", |s| s.disk.healed;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_tell_their_kind() {
        let all = metrics(&CacheStats::default());
        let names: std::collections::BTreeSet<_> = all.iter().map(|metric| metric.name).collect();
        assert_eq!(names.len(), all.len());
        assert!(all.iter().all(|m| m.name.starts_with("g8_cache_") && m.help.ends_with('.')));
    }
}
