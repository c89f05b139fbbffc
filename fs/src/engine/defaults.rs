//! Where the cache is and how large it may grow, when nobody says. Every program that mounts uses these, so that they
//! share one cache and one daemon.

use std::path::PathBuf;

use super::EngineConfig;

/// Size of the disk cache.
const DISK: u64 = 10 << 30;
/// Bytes of the cache's file system that always stay free.
const FREE_FLOOR: u64 = 512 << 20;
/// Decoded frames that a daemon keeps in memory.
const MEMORY: u64 = 128 << 20;

/// The folder of the cache: `$XDG_CACHE_HOME/g8os`, else `~/.cache/g8os`.
pub fn default_cache() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let base = set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache")))?;
    Some(base.join("g8os"))
}

impl EngineConfig {
    /// The usual budgets.
    pub fn new(cache_dir: PathBuf) -> Self {
        EngineConfig { cache_dir, disk_budget: DISK, free_floor: FREE_FLOOR, memory_budget: MEMORY }
    }
}
