//! Ctrl-C and SIGTERM: end the program in the foreground and refuse the next step.
//!
//! The step then fails like any other, and what it holds is unmounted and removed on the way out: there is one way to
//! clean up. The two statics are all that a signal shares with the run.

use std::process::Child;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process_group};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

static ASKED: AtomicBool = AtomicBool::new(false);
/// The process group that is waited for; 0 for none.
static FOREGROUND: AtomicI32 = AtomicI32::new(0);

/// From now on a signal stops the run instead of killing this program.
pub fn listen() -> anyhow::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).context("listening for signals")?;
    std::thread::spawn(move || {
        for _ in signals.forever() {
            if !ASKED.swap(true, Ordering::SeqCst) {
                eprintln!("stopping: what is mounted is unmounted first");
            }
            end_foreground();
        }
    });
    Ok(())
}

/// Fails once a signal has come.
pub fn check() -> anyhow::Result<()> {
    anyhow::ensure!(!ASKED.load(Ordering::SeqCst), "stopped by a signal");
    Ok(())
}

/// While it lives, a signal ends this child and its group.
pub(crate) struct Foreground;

impl Foreground {
    /// The child must lead a process group of its own.
    pub(crate) fn new(child: &Child) -> Foreground {
        FOREGROUND.store(child.id() as i32, Ordering::SeqCst);
        // It may have been started while the signal came.
        if ASKED.load(Ordering::SeqCst) {
            end_foreground();
        }
        Foreground
    }
}

impl Drop for Foreground {
    fn drop(&mut self) {
        FOREGROUND.store(0, Ordering::SeqCst);
    }
}

fn end_foreground() {
    if let Some(group) = Pid::from_raw(FOREGROUND.load(Ordering::SeqCst)) {
        // It may be gone already, which is what is wanted.
        let _ = kill_process_group(group, Signal::TERM);
    }
}
