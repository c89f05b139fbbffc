//! The end of the spawner: nothing that it started, or that those started, is left.

use std::time::{Duration, Instant};

/// How long processes may take that are asked to end: less than PID 1 waits after it has asked all there are.
const ASKED: Duration = Duration::from_millis(1500);
/// How long killed processes may take to be gone. One that hangs in the kernel is left to PID 1.
const DEADLINE: Duration = Duration::from_secs(2);

/// Asks all children to end, and gives them time for it.
pub fn ask_all() {
    for pid in children() {
        // SAFETY: no pointers; a child that is not reaped keeps its pid.
        unsafe { libc::kill(pid, libc::SIGTERM) };
    }
    let deadline = Instant::now() + ASKED;
    while Instant::now() < deadline {
        if !reap() {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Kills all children until there are none: those of a killed one become ours, as we are their subreaper.
pub fn kill_all() {
    let deadline = Instant::now() + DEADLINE;
    while Instant::now() < deadline {
        for pid in children() {
            // SAFETY: no pointers; a child that is not reaped keeps its pid.
            unsafe { libc::kill(pid, libc::SIGKILL) };
        }
        if !reap() {
            return;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Reaps those that have ended; false when there are no others.
fn reap() -> bool {
    loop {
        // SAFETY: a null status is allowed.
        match unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) } {
            0 => return true,
            -1 => return false,
            _ => {}
        }
    }
}

fn children() -> Vec<i32> {
    let list = std::fs::read_to_string("/proc/thread-self/children").unwrap_or_default();
    list.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}
