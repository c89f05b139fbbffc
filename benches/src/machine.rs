//! The machine the numbers are from, and its page cache.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
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
    fs::write("/proc/sys/vm/drop_caches", "3").context("dropping the page cache")
}

/// Drops directory entries and inodes, and keeps pages.
pub fn drop_inodes() -> anyhow::Result<()> {
    fs::write("/proc/sys/vm/drop_caches", "2").context("dropping cached inodes")
}

/// Reads a file, or all files below a folder, so that they are in the page cache.
pub fn warm(path: &Path) -> anyhow::Result<()> {
    let mut buffer = vec![0; 256 * 1024];
    let mut pending = vec![path.to_owned()];
    while let Some(path) = pending.pop() {
        let kind = fs::symlink_metadata(&path).with_context(|| path.display().to_string())?.file_type();
        if kind.is_dir() {
            for entry in fs::read_dir(&path).with_context(|| path.display().to_string())? {
                pending.push(entry?.path());
            }
        } else if kind.is_file() {
            let mut file = File::open(&path).with_context(|| path.display().to_string())?;
            while file.read(&mut buffer)? > 0 {}
        }
    }
    Ok(())
}

/// The kernel's version.
pub fn kernel() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

/// Kernel, processor, number of processors and memory.
pub fn describe() -> String {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let (cpuinfo, meminfo) = (read("/proc/cpuinfo"), read("/proc/meminfo"));
    let model = cpuinfo.lines().find_map(|l| l.strip_prefix("model name")).unwrap_or(": unknown");
    let model = model.trim_start_matches([':', ' ', '\t']);
    let total =
        meminfo.lines().find_map(|l| l.strip_prefix("MemTotal:")?.strip_suffix("kB")?.trim().parse().ok());
    let gib = total.unwrap_or(0u64) as f64 / f64::from(1 << 20);
    let count = std::thread::available_parallelism().map_or(0, usize::from);
    format!("Linux {}, {count} x {model}, {gib:.0} GiB", kernel())
}

/// Seconds or milliseconds, as fits.
pub fn show(time: Duration) -> String {
    if time >= Duration::from_secs(1) {
        format!("{:.2} s", time.as_secs_f64())
    } else {
        format!("{:.1} ms", time.as_secs_f64() * 1e3)
    }
}
