//! How many processes and threads the kernel can have.

use super::text;

/// Where it says so. The last one is there in a container, and may be "max".
const FILES: [&str; 3] =
    ["/proc/sys/kernel/pid_max", "/proc/sys/kernel/threads-max", "/sys/fs/cgroup/pids.max"];
/// How many these are where it does not say.
const USUAL: u64 = 32_768;

/// All together.
pub fn processes() -> u64 {
    FILES.into_iter().filter_map(text::value).min().unwrap_or(USUAL)
}
