//! The cache in numbers.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use serde::{Deserialize, Serialize};

use super::{DiskStats, Hit, MemoryStats};

/// What a cache holds and did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheStats {
    /// The memory tier.
    pub memory: MemoryStats,
    /// The disk tier.
    pub disk: DiskStats,
    /// Where answers came from.
    pub hits: HitStats,
}

/// Answers since the cache was opened, by where they came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HitStats {
    /// From the memory tier.
    pub memory: u64,
    /// From the disk tier.
    pub disk: u64,
    /// From a source.
    pub source: u64,
}

#[derive(Default)]
pub(super) struct HitCounts {
    memory: AtomicU64,
    disk: AtomicU64,
    source: AtomicU64,
}

impl HitCounts {
    pub(super) fn count(&self, hit: Hit) {
        let counter = match hit {
            Hit::Memory => &self.memory,
            Hit::Disk => &self.disk,
            Hit::Source => &self.source,
        };
        counter.fetch_add(1, Relaxed);
    }

    pub(super) fn snapshot(&self) -> HitStats {
        HitStats {
            memory: self.memory.load(Relaxed),
            disk: self.disk.load(Relaxed),
            source: self.source.load(Relaxed),
        }
    }
}
