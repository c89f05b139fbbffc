//! The machine the numbers are from, and its page cache.

use std::time::Duration;

use anyhow::Context;

/// Fails unless this process is root.
pub fn need_root(what: &str) -> anyhow::Result<()> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    anyhow::bail!("{what} mounts file systems and drops the page cache: run it as root (sudo make ...)")
}

/// Drops clean pages, directory entries and inodes from memory.
pub fn drop_caches() -> anyhow::Result<()> {
    rustix::fs::sync();
    std::fs::write("/proc/sys/vm/drop_caches", "3").context("dropping the page cache")
}

/// Drops directory entries and inodes, and keeps pages.
pub fn drop_inodes() -> anyhow::Result<()> {
    std::fs::write("/proc/sys/vm/drop_caches", "2").context("dropping cached inodes")
}

/// Kernel, processor and number of processors.
pub fn describe() -> String {
    let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo.lines().find_map(|l| l.strip_prefix("model name")).unwrap_or(": unknown");
    let count = std::thread::available_parallelism().map_or(0, usize::from);
    format!("Linux {kernel}, {count} x {}", model.trim_start_matches([':', ' ', '\t']))
}

/// Seconds or milliseconds, as fits.
pub fn show(time: Duration) -> String {
    if time >= Duration::from_secs(1) {
        format!("{:.2} s", time.as_secs_f64())
    } else {
        format!("{:.1} ms", time.as_secs_f64() * 1e3)
    }
}

/// The middle of several times.
pub fn median(times: &[Duration]) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}
