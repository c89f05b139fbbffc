//! Signals: blocked around the clone, reset in the child, and forwarded to it by the caller.

use std::mem::zeroed;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::ptr;
use std::sync::atomic::{AtomicI32, Ordering};

use rustix::io::{Errno, Result};
use rustix::process::Signal;

use super::syscall::check;

/// What is sent to the caller and meant for the command. Not TSTP and CONT: they stop and continue the
/// caller, whose shell waits for that; a terminal sends its own to the command directly.
const FORWARDED: [i32; 7] =
    [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGUSR1, libc::SIGUSR2, libc::SIGWINCH];

/// All signals of this thread blocked, until dropped.
pub(super) struct Blocked {
    before: libc::sigset_t,
}

impl Blocked {
    pub(super) fn all() -> Self {
        // SAFETY: plain data, filled by the call.
        let mut before: libc::sigset_t = unsafe { zeroed() };
        let all = every_signal();
        // SAFETY: two valid sets; with them and SIG_BLOCK the call cannot fail.
        unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const all, &raw mut before) };
        Blocked { before }
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        // SAFETY: a valid set from the call that blocked.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.before, ptr::null_mut()) };
    }
}

fn every_signal() -> libc::sigset_t {
    // SAFETY: plain data, filled by the call, which cannot fail.
    unsafe {
        let mut set = zeroed();
        libc::sigfillset(&raw mut set);
        set
    }
}

/// In the child: gives every signal its default action. The caller's handlers mean nothing there, and Rust's
/// ignored SIGPIPE would be inherited by the command.
pub(super) fn reset_dispositions() -> Result<()> {
    // The kernel's own call: the C library's wrapper refuses some signals and may take a lock. Its `struct
    // sigaction` has at most four words; all zero is SIG_DFL without flags.
    const DEFAULT: [u64; 4] = [0; 4];
    const MASK_SIZE: usize = 8;
    for signal in 1..=libc::SIGRTMAX() {
        if signal == libc::SIGKILL || signal == libc::SIGSTOP {
            continue;
        }
        // SAFETY: `DEFAULT` is as long as the longest layout, and no handler is installed.
        check(unsafe {
            libc::syscall(libc::SYS_rt_sigaction, signal, DEFAULT.as_ptr(), ptr::null::<u64>(), MASK_SIZE)
        })?;
    }
    Ok(())
}

/// In the child: lets all signals through, for the command.
pub(super) fn unblock_all() -> Result<()> {
    // SAFETY: plain data, for which the call makes it the empty set.
    let errno = unsafe {
        let mut none: libc::sigset_t = zeroed();
        libc::sigemptyset(&raw mut none);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut())
    };
    if errno == 0 { Ok(()) } else { Err(Errno::from_raw_os_error(errno)) }
}

/// In the child: sleeps until a signal is pending, which must be blocked, and takes it.
pub(super) fn wait_for_signal() -> Result<i32> {
    let all = every_signal();
    // SAFETY: a valid set; NULL asks for no details.
    let signal = unsafe { libc::sigwaitinfo(&raw const all, ptr::null_mut()) };
    check(signal.into()).map(|_| signal)
}

/// The pidfd that the handler sends to, or -1. Signal handlers belong to the process, and so must this.
static TARGET: AtomicI32 = AtomicI32::new(-1);

/// Signals to this process go to a container, until dropped; then the former handlers are back.
pub(super) struct Forwarding {
    before: [Option<libc::sigaction>; FORWARDED.len()],
}

impl Forwarding {
    /// Forwards to this process, unless another container of this process has the signals already.
    pub(super) fn to(pidfd: BorrowedFd<'_>) -> Self {
        let mut before = [None; FORWARDED.len()];
        if TARGET.compare_exchange(-1, pidfd.as_raw_fd(), Ordering::SeqCst, Ordering::SeqCst).is_ok() {
            for (before, signal) in before.iter_mut().zip(FORWARDED) {
                *before = install(signal);
            }
        }
        Forwarding { before }
    }
}

impl Drop for Forwarding {
    fn drop(&mut self) {
        let mut owner = false;
        for (before, signal) in self.before.iter().zip(FORWARDED) {
            if let Some(before) = before {
                owner = true;
                // SAFETY: what the kernel returned when the handler was installed.
                unsafe { libc::sigaction(signal, before, ptr::null_mut()) };
            }
        }
        // Only after the handlers are gone may the descriptor be closed.
        if owner {
            TARGET.store(-1, Ordering::SeqCst);
        }
    }
}

/// Installs the handler and returns the action before it; none when the signal is ignored, as under `nohup`.
fn install(signal: i32) -> Option<libc::sigaction> {
    let handler: extern "C" fn(i32) = forward;
    // SAFETY: plain data, for which zero is valid; `forward` is safe in a handler. SA_RESTART keeps the
    // caller's other system calls from failing with EINTR.
    unsafe {
        let mut before: libc::sigaction = zeroed();
        libc::sigaction(signal, ptr::null(), &raw mut before);
        if before.sa_sigaction == libc::SIG_IGN {
            return None;
        }
        let mut action: libc::sigaction = zeroed();
        action.sa_sigaction = handler as *const () as libc::sighandler_t;
        action.sa_flags = libc::SA_RESTART;
        (libc::sigaction(signal, &raw const action, ptr::null_mut()) == 0).then_some(before)
    }
}

extern "C" fn forward(signal: i32) {
    let (target, nothing): (RawFd, *const libc::siginfo_t) = (TARGET.load(Ordering::SeqCst), ptr::null());
    // SAFETY: a system call is safe in a handler; errno is put back, as the interrupted code may be about to
    // read it.
    unsafe {
        let errno = libc::__errno_location();
        let before = *errno;
        libc::syscall(libc::SYS_pidfd_send_signal, target, signal, nothing, 0);
        *errno = before;
    }
}

/// The signal with this number, unless it is a real-time one, which has no name.
pub(super) fn named(signal: i32) -> Option<Signal> {
    Signal::from_named_raw(signal)
}
