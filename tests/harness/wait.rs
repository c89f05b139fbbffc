//! Waiting for what happens in another process, always with a limit.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// Polls `done` until it holds; panics with `what` after `limit`.
pub fn until(what: &str, limit: Duration, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < limit, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Whether process `pid` ends within `limit`. A process that is gone already counts as ended.
pub fn ends(pid: i32, limit: Duration) -> bool {
    let Some(pid) = Pid::from_raw(pid) else { return true };
    let Ok(fd) = pidfd_open(pid, PidfdFlags::empty()) else { return true };
    let limit = Timespec::try_from(limit).expect("a limit of seconds fits");
    let mut fds = [PollFd::new(&fd, PollFlags::IN)];
    matches!(poll(&mut fds, Some(&limit)), Ok(n) if n > 0)
}

/// Whether `pipe` has something to read, or its end, within `limit`.
pub fn has_words(pipe: impl AsFd, limit: Duration) -> bool {
    let limit = Timespec::try_from(limit).expect("a limit of seconds fits");
    matches!(poll(&mut [PollFd::new(&pipe, PollFlags::IN)], Some(&limit)), Ok(n) if n > 0)
}

/// Panics unless process `pid` ends within `limit`.
pub fn for_the_end_of(pid: i32, limit: Duration) {
    assert!(ends(pid, limit), "process {pid} still runs after {limit:?}");
}

/// Whether process `pid` runs (a zombie does not).
pub fn runs(pid: i32) -> bool {
    !ends(pid, Duration::ZERO)
}

/// Whether every thread of process `pid` is stopped.
pub fn is_stopped(pid: i32) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    // `TID (NAME) STATE ...`, and a name may hold anything.
    let state = |stat: String| stat.rsplit(')').next().and_then(|rest| rest.trim_start().chars().next());
    threads.filter_map(|t| std::fs::read_to_string(t.path().join("stat")).ok()).all(|s| state(s) == Some('T'))
}
