//! Waiting for a child by wait4(2), the only call that says what this one child used.

use std::io;
use std::mem::MaybeUninit;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitStatus};
use std::time::Duration;

/// What a child used, its own children included as far as it waited for them.
pub(super) struct Used {
    pub(super) cpu: Duration,
    pub(super) peak_rss_bytes: u64,
}

/// Waits for the child's end.
pub(super) fn reap(child: &Child) -> io::Result<(ExitStatus, Used)> {
    let mut status = 0;
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    loop {
        // SAFETY: both pointers are to live values of the right types, and the child was not waited for yet.
        let got = unsafe { libc::wait4(child.id() as libc::pid_t, &mut status, 0, usage.as_mut_ptr()) };
        if got >= 0 {
            break;
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    // SAFETY: zero is a valid value of every field, and wait4 has filled them.
    let usage = unsafe { usage.assume_init() };
    let cpu = duration(usage.ru_utime) + duration(usage.ru_stime);
    // Linux counts in KiB.
    let peak_rss_bytes = usage.ru_maxrss.unsigned_abs() * 1024;
    Ok((ExitStatus::from_raw(status), Used { cpu, peak_rss_bytes }))
}

fn duration(time: libc::timeval) -> Duration {
    Duration::from_secs(time.tv_sec.unsigned_abs()) + Duration::from_micros(time.tv_usec.unsigned_abs())
}
