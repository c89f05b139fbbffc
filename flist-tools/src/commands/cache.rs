//! `flist cache stats|gc|clear`: through the daemon when one runs, else by opening the cache for a moment.

use std::time::Duration;

use anyhow::bail;
use g8_cache::{Cache, CacheConfig, CacheStats};
use g8_fs::daemon::{Client, ClientError, Reply, Request};

use crate::cli::{CacheCommand, Global};
use crate::{defaults, output};

const LIMIT: Duration = Duration::from_secs(60);

pub fn run(global: &Global, command: &CacheCommand) -> anyhow::Result<()> {
    let request = match command {
        CacheCommand::Stats => Request::CacheStats,
        CacheCommand::Gc => Request::CacheGc { budget: global.cache_size },
        CacheCommand::Clear => Request::CacheClear,
    };
    let stats = match Client::new(&defaults::cache(global)?, None).ask(&request, LIMIT) {
        Ok((Reply::Cache(stats), _)) => *stats,
        Ok((other, _)) => bail!("the daemon answered with {other:?}"),
        Err(ClientError::NotRunning(_)) => alone(global, command)?,
        Err(e) => return Err(e.into()),
    };
    if global.json { output::json(&stats) } else { text(&stats) }
}

fn alone(global: &Global, command: &CacheCommand) -> anyhow::Result<CacheStats> {
    let config = defaults::engine(global)?;
    let cache = Cache::open(CacheConfig {
        dir: Some(config.cache_dir),
        disk_budget: config.disk_budget,
        free_floor: config.free_floor,
        memory_budget: 0,
    })?;
    match command {
        CacheCommand::Stats => {}
        CacheCommand::Gc => cache.gc(),
        CacheCommand::Clear => cache.clear(),
    }
    Ok(cache.stats())
}

fn text(stats: &CacheStats) -> anyhow::Result<()> {
    let (disk, memory, hits) = (&stats.disk, &stats.memory, &stats.hits);
    output::line(format_args!("disk    {} of {}", output::size(disk.bytes), output::size(disk.budget)))?;
    output::line(format_args!("memory  {} of {}", output::size(memory.bytes), output::size(memory.budget)))?;
    output::line(format_args!("hits    {} memory, {} disk, {} source", hits.memory, hits.disk, hits.source))?;
    output::line(format_args!("damaged {} entries found and dropped", disk.damaged))
}
