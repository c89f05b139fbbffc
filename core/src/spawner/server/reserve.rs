//! What jobs and services cannot take from the node, however many they are together.

use std::io;

use crate::sys::capacity;

/// The cgroup of this process, and so of all that it starts but containers with limits, which have their own.
const CGROUP: &str = "jobs";
/// What they may be together, of the processes that the kernel can have.
const SHARE_PERCENT: u64 = 90;

/// Takes some of the processes for those who are not started by us, where the kernel counts them: PID 1, the manager, who logs
/// in. What is not to be had is said, and done without: who has too many is ended anyhow.
pub fn take() {
    match First::go() {
        Ok(first) => drop(first),
        Err(e) => {
            eprintln!("core0 spawner: a processor that many processes want is not had before them: {e}")
        }
    }
    let most = capacity::processes() * SHARE_PERCENT / 100;
    if let Err(e) = g8_container::bound_processes(CGROUP, most) {
        eprintln!("core0 spawner: all jobs and services together may be more than {most} processes: {e}");
    }
}

/// While this lives, this process has a processor before all that it started: it is in the lowest class of those that do not
/// share. Not for longer: who comes at once to whatever is asked does less at a time, and starts a third fewer processes.
pub struct First;

impl First {
    /// Begins.
    pub fn go() -> io::Result<Self> {
        schedule(libc::SCHED_RR | libc::SCHED_RESET_ON_FORK, 1).map(|()| Self)
    }
}

impl Drop for First {
    fn drop(&mut self) {
        // Who may go up may go down.
        let _ = schedule(libc::SCHED_OTHER, 0);
    }
}

fn schedule(policy: libc::c_int, sched_priority: libc::c_int) -> io::Result<()> {
    // SAFETY: the parameters are a local.
    match unsafe { libc::sched_setscheduler(0, policy, &libc::sched_param { sched_priority }) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
