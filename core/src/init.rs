//! PID 1: starts the manager and starts it again, reaps everybody, and ends the machine in order.
//!
//! One thread, no runtime, and nothing is allocated between two signals: what it needs for the manager is made before. It
//! does not end while the machine runs, whatever the manager does. [`end`] is the way down.
//!
//! It is told by signals, as PID 1 always was: SIGTERM and SIGINT reboot, SIGUSR1 halts, SIGUSR2 powers off. Ctrl-Alt-Del would
//! have the kernel reboot at once, with everything running and mounted; it is told to send SIGINT instead (reboot(2)).

// `core0-init` takes this file in by its path, and from there a plain `mod` would look elsewhere.
#[path = "init/end.rs"]
mod end;

use std::ffi::{CString, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, Instant};

use crate::say::say;
pub use end::{Down, Ending};

/// The first pause before the manager is started again; it doubles.
const PAUSE: Duration = Duration::from_millis(100);
/// The longest one.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// A manager that lived for so long begins anew.
const WELL: Duration = Duration::from_secs(30);

/// How long the manager may take to stop jobs, services and redis, and itself.
pub const MANAGER_STOP: Duration = Duration::from_secs(30);

/// The manager, ready to be started.
struct Manager {
    program: CString,
    argv: Vec<CString>,
    pointers: Vec<*mut libc::c_char>,
    attributes: libc::posix_spawnattr_t,
    pid: Option<i32>,
    started: Instant,
    pause: Duration,
    /// When it is to be started.
    due: Option<Instant>,
}

/// Runs until a signal ends the machine, and says how. `arguments` are those of the manager.
pub fn run(arguments: &[OsString], machine: bool) -> io::Result<Down> {
    let signals = signals()?;
    // After the signals are blocked: one that comes now is found below.
    if machine {
        take_ctrl_alt_del();
    }
    // SAFETY: this process has one thread.
    unsafe { std::env::set_var("CORE0_MACHINE", "1") };
    let mut manager = Manager::new(arguments)?;
    loop {
        manager.start_when_due();
        match next(&signals, manager.due) {
            None | Some(libc::SIGCHLD) => reap(|pid, status| manager.ended(pid, status)),
            Some(libc::SIGTERM | libc::SIGINT) => return Ok(manager.down(Ending::Reboot)),
            Some(libc::SIGUSR1) => return Ok(manager.down(Ending::Halt)),
            Some(libc::SIGUSR2) => return Ok(manager.down(Ending::PowerOff)),
            Some(_) => {}
        }
    }
}

/// Ends all processes, the manager first. In a machine this does not return: a PID 1 that ends is a kernel that panics.
pub fn finish(down: Down, machine: bool) -> io::Result<()> {
    let ended = end::end(down, machine);
    if machine {
        say(format_args!("core0 init: the machine cannot be ended: it stands still"));
        loop {
            std::thread::sleep(PAUSE_MAX);
        }
    }
    ended
}

/// Has the kernel send SIGINT for Ctrl-Alt-Del. In a namespace it refuses, and the keys are the host's.
fn take_ctrl_alt_del() {
    // SAFETY: no pointers.
    if unsafe { libc::reboot(libc::RB_DISABLE_CAD) } != 0 {
        let error = io::Error::last_os_error();
        say(format_args!("core0 init: Ctrl-Alt-Del is not ours: {error}"));
    }
}

/// The signals that are waited for, blocked.
fn signals() -> io::Result<libc::sigset_t> {
    // SAFETY: the set is a local that sigfillset initialises.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&mut set);
        if libc::sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()) != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(set)
    }
}

/// Waits for a signal, or until something is due.
fn next(signals: &libc::sigset_t, due: Option<Instant>) -> Option<i32> {
    // SAFETY: all pointers are to locals or null.
    let signal = unsafe {
        match due {
            None => libc::sigwaitinfo(signals, std::ptr::null_mut()),
            Some(due) => {
                let left = due.saturating_duration_since(Instant::now());
                let time = libc::timespec {
                    tv_sec: left.as_secs() as libc::time_t,
                    tv_nsec: left.subsec_nanos().into(),
                };
                libc::sigtimedwait(signals, std::ptr::null_mut(), &time)
            }
        }
    };
    (signal > 0).then_some(signal)
}

/// Reaps all that ended: children of our own, and orphans.
fn reap(mut ended: impl FnMut(i32, i32)) {
    loop {
        let mut status = 0;
        // SAFETY: the pointer is to a local.
        match unsafe { libc::waitpid(-1, &mut status, libc::WNOHANG) } {
            pid if pid > 0 => ended(pid, status),
            _ => return,
        }
    }
}

impl Manager {
    fn new(arguments: &[OsString]) -> io::Result<Self> {
        let program = CString::new(std::env::current_exe()?.with_file_name("core0").as_os_str().as_bytes())?;
        let mut argv = vec![program.clone(), CString::from(c"run")];
        for argument in arguments {
            argv.push(CString::new(argument.as_bytes())?);
        }
        let mut pointers: Vec<_> = argv.iter().map(|argument| argument.as_ptr().cast_mut()).collect();
        pointers.push(std::ptr::null_mut());
        let attributes = attributes()?;
        let started = Instant::now();
        Ok(Self { program, argv, pointers, attributes, pid: None, started, pause: PAUSE, due: Some(started) })
    }

    fn start_when_due(&mut self) {
        if self.due.is_none_or(|due| Instant::now() < due) {
            return;
        }
        let mut pid = 0;
        debug_assert_eq!(self.pointers.len(), self.argv.len() + 1);
        // SAFETY: program, pointers (which end with null) and attributes live as long as self.
        let failed = unsafe {
            libc::posix_spawn(
                &mut pid,
                self.program.as_ptr(),
                std::ptr::null(),
                &self.attributes,
                self.pointers.as_ptr(),
                environment(),
            )
        };
        self.started = Instant::now();
        if failed == 0 {
            (self.pid, self.due) = (Some(pid), None);
        } else {
            let error = io::Error::from_raw_os_error(failed);
            let pause = self.pause.as_millis();
            say(format_args!("core0 init: cannot start the manager: {error}: again in {pause} ms"));
            self.pause_and_restart();
        }
    }

    fn ended(&mut self, pid: i32, status: i32) {
        if self.pid == Some(pid) {
            if self.started.elapsed() > WELL {
                self.pause = PAUSE;
            }
            let (how, number) = match libc::WIFSIGNALED(status) {
                true => ("by signal", libc::WTERMSIG(status)),
                false => ("with code", libc::WEXITSTATUS(status)),
            };
            let pause = self.pause.as_millis();
            say(format_args!(
                "core0 init: the manager ended {how} {number}: it is started again in {pause} ms"
            ));
            self.pid = None;
            self.pause_and_restart();
        }
    }

    fn down(&self, ending: Ending) -> Down {
        Down { ending, manager: self.pid }
    }

    fn pause_and_restart(&mut self) {
        self.due = Some(Instant::now() + self.pause);
        self.pause = (self.pause * 2).min(PAUSE_MAX);
    }
}

/// The manager is started in a session of its own, with no signal blocked.
fn attributes() -> io::Result<libc::posix_spawnattr_t> {
    // SAFETY: both structures are locals that their init functions fill; POSIX_SPAWN_SETSID takes no value.
    unsafe {
        let mut attributes: libc::posix_spawnattr_t = std::mem::zeroed();
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut none);
        let flags = libc::POSIX_SPAWN_SETSIGMASK | i32::from(libc::POSIX_SPAWN_SETSID);
        if libc::posix_spawnattr_init(&mut attributes) != 0
            || libc::posix_spawnattr_setflags(&mut attributes, flags as libc::c_short) != 0
            || libc::posix_spawnattr_setsigmask(&mut attributes, &none) != 0
        {
            return Err(io::Error::last_os_error());
        }
        Ok(attributes)
    }
}

fn environment() -> *const *mut libc::c_char {
    unsafe extern "C" {
        static environ: *const *mut libc::c_char;
    }
    // SAFETY: this process has one thread and never changes its environment.
    unsafe { environ }
}
