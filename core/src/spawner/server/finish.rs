//! The end of the spawner: nothing that it started, or that those started, is left.

use std::time::{Duration, Instant};

/// How long killed processes may take to be gone. One that hangs in the kernel is left to PID 1.
const DEADLINE: Duration = Duration::from_secs(2);

/// Kills all children until there are none: those of a killed one become ours, as we are their subreaper.
pub fn kill_all() {
    let deadline = Instant::now() + DEADLINE;
    while Instant::now() < deadline {
        for pid in children() {
            // SAFETY: no pointers; a child that is not reaped keeps its pid.
            unsafe { libc::kill(pid, libc::SIGKILL) };
        }
        loop {
            // SAFETY: a null status is allowed.
            match unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) } {
                0 => break,
                -1 => return,
                _ => {}
            }
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn children() -> Vec<i32> {
    let list = std::fs::read_to_string("/proc/thread-self/children").unwrap_or_default();
    list.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}
