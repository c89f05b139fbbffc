//! What jobs and services cannot take from the node, however many they are together.

use std::io;

use crate::say::say;
use crate::sys::capacity;

/// The cgroup of this process, and so of all that it starts but containers with limits, which have their own.
const CGROUP: &str = "jobs";
/// What they may be together, of the processes that the kernel can have.
const SHARE_PERCENT: u64 = 90;

/// Takes some of the processes for those who are not started by us, where the kernel counts them: PID 1, the manager, who logs
/// in. What is not to be had is said, and done without: who has too many is ended anyhow.
pub fn take() {
    if let Err(e) = go_first(0).and_then(|()| go_with_others(0)) {
        say(format_args!("core0 spawner: a processor that many processes want is not had before them: {e}"));
    }
    let most = capacity::processes() * SHARE_PERCENT / 100;
    if let Err(e) = g8_container::bound_processes(CGROUP, most) {
        say(format_args!(
            "core0 spawner: all jobs and services together may be more than {most} processes: {e}"
        ));
    }
}

/// From now on this thread of this process, 0 for the one that calls this, has a processor before all that it started: it is in the
/// lowest class of those that do not share.
pub fn go_first(thread: i32) -> io::Result<()> {
    schedule(thread, libc::SCHED_RR | libc::SCHED_RESET_ON_FORK, 1)
}

/// From now on that thread shares with all others.
pub fn go_with_others(thread: i32) -> io::Result<()> {
    schedule(thread, libc::SCHED_OTHER, 0)
}

fn schedule(thread: i32, policy: libc::c_int, sched_priority: libc::c_int) -> io::Result<()> {
    // SAFETY: the parameters are a local.
    match unsafe { libc::sched_setscheduler(thread, policy, &libc::sched_param { sched_priority }) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
