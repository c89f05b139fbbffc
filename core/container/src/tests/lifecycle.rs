//! How containers end, and that nothing of them stays.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::Child;
use std::ptr;
use std::time::{Duration, Instant};

use super::super::step::Step;
use super::super::syscall;
use super::harness::{Image, Launch, any_process_with, send};

/// A shell that says when it is ready and then waits, with an action for a signal.
fn waiting(image: &Image, trap: &str) -> Launch {
    image.sh(&format!("trap 'echo caught; exit 7' {trap}; echo ready; while :; do sleep 0.02; done"))
}

#[test]
fn orphans_belong_to_pid_1_and_are_reaped() {
    // The inner shell waits until its parent is gone; then the `&` children end as orphans, too.
    let script = "(sh -c 'sleep 0.2; grep PPid /proc/$$/status' &); (true &); (false &); sleep 0.5; \
        grep -l 'State:.Z' /proc/[0-9]*/status | wc -l";
    assert_eq!(Image::new().sh(script).finish().text(), "PPid:\t1\n0\n");
}

#[test]
fn signals_to_the_caller_reach_the_command() {
    let image = Image::new();
    for (name, number) in
        [("HUP", libc::SIGHUP), ("INT", libc::SIGINT), ("TERM", libc::SIGTERM), ("USR1", libc::SIGUSR1)]
    {
        let mut running = waiting(&image, name).start();
        assert_eq!(running.line(), "ready\n");
        running.signal(number);
        let done = running.finish();
        assert_eq!((done.code, done.text()), (7, "caught\n"), "{name}");
    }
}

#[test]
fn init_and_the_command_are_in_no_group_that_the_callers_terminal_signals() {
    // Else Ctrl-C arrives twice when stdin is not the terminal: from it, and forwarded by the caller.
    let script = "for n in 1 $$; do read pid comm state parent group session rest < /proc/$n/stat; \
        echo $group $session; done";
    assert_eq!(Image::new().sh(script).finish().text(), "1 1\n2 2\n");
}

#[test]
fn a_command_without_a_handler_dies_of_the_signal() {
    let image = Image::new();
    let mut running = image.sh("echo ready; exec sleep 1000").start();
    assert_eq!(running.line(), "ready\n");
    running.signal(libc::SIGTERM);
    assert_eq!(running.finish().code, 128 + libc::SIGTERM);
}

#[test]
fn what_the_command_leaves_running_ends_with_it() {
    let word = unique("7001");
    let done = Image::new().sh(&format!("setsid sleep {word} & sleep {word} & sleep 0.2; exit 5")).finish();
    assert_eq!(done.code, 5);
    assert!(!any_process_with(&word));
}

#[test]
fn killing_the_caller_leaves_no_process() {
    let word = unique("7002");
    let script = format!("setsid sleep {word} & sleep {word} & echo ready; exec sleep {word}");
    let image = Image::new();
    let mut running = image.sh(&script).start();
    assert_eq!(running.line(), "ready\n");
    until("the command runs", || any_process_with(&word));
    // Not `finish`: its end of output is the end of the container, which is in question here.
    running.signal(libc::SIGKILL);
    assert_eq!(running.child.wait().expect("wait").signal(), Some(libc::SIGKILL));
    until("the container is gone", || !any_process_with(&word));
}

#[test]
fn containers_of_one_process_run_side_by_side() {
    let done = Launch { threads: 8, ..Image::new().sh("exit 1") }.finish();
    assert_eq!(done.code, 8, "{}", done.text());
}

#[test]
fn ctrl_c_on_the_terminal_reaches_the_command_and_nobody_else() {
    let image = Image::new();
    let (mut screen, keyboard_side) = terminal();
    let mut child = waiting(&image, "INT").start_on(&keyboard_side);
    drop(keyboard_side);
    read_until(&mut screen, "ready");
    screen.write_all(b"\x03").expect("type");
    read_until(&mut screen, "caught");
    assert_eq!(child.wait().expect("wait").code(), Some(7));
}

#[test]
fn ctrl_z_stops_the_caller_and_fg_continues_the_command_in_the_foreground() {
    let image = Image::new();
    let (mut screen, keyboard_side) = terminal();
    let mut child = waiting(&image, "INT").start_on(&keyboard_side);
    drop(keyboard_side);
    read_until(&mut screen, "ready");
    let foreground = |screen: &File| syscall::foreground_group(screen.as_fd()).expect("a terminal");
    let (callers, commands) = (child.id().cast_signed(), foreground(&screen));
    assert_ne!(commands, callers);
    screen.write_all(b"\x1a").expect("type");
    assert!(stops(&child), "the caller stops, for its shell to see");
    assert_eq!(foreground(&screen), callers);

    send(&child, libc::SIGCONT);
    until("the command has the foreground again", || foreground(&screen) == commands);
    screen.write_all(b"\x03").expect("type");
    read_until(&mut screen, "caught");
    assert_eq!(child.wait().expect("wait").code(), Some(7));
}

#[test]
fn a_command_on_a_terminal_finds_its_console_and_job_control() {
    let image = Image::new();
    let (mut screen, keyboard_side) = terminal();
    let script = "test -c /dev/console && test -t 0 && echo x > /dev/tty && echo x > /dev/stderr && \
        sh -i -c 'set -m; sleep 0.01 & wait; echo jobs' 2>&1 && echo done";
    let mut child = image.sh(script).start_on(&keyboard_side);
    drop(keyboard_side);
    let text = read_until(&mut screen, "done");
    assert!(text.contains("jobs") && !text.contains("job control"), "{text}");
    assert_eq!(child.wait().expect("wait").code(), Some(0));
}

fn unique(prefix: &str) -> String {
    format!("{prefix}{}", std::process::id())
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until the child stops; false when it ends instead.
fn stops(child: &Child) -> bool {
    let mut status = 0;
    // SAFETY: `status` outlives the call.
    let pid = unsafe { libc::waitpid(child.id().cast_signed(), &raw mut status, libc::WUNTRACED) };
    pid > 0 && libc::WIFSTOPPED(status)
}

/// A new pty: the side of the screen and the keyboard, and the side of the programs.
fn terminal() -> (File, OwnedFd) {
    let (mut screen, mut programs) = (-1, -1);
    // SAFETY: two descriptors to be filled, the rest is left to the defaults.
    let opened = unsafe {
        libc::openpty(&raw mut screen, &raw mut programs, ptr::null_mut(), ptr::null_mut(), ptr::null_mut())
    };
    assert_eq!(opened, 0, "openpty");
    for fd in [screen, programs] {
        // SAFETY: no pointers.
        unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
    // SAFETY: both have just been opened and belong to nobody else.
    unsafe { (File::from_raw_fd(screen), OwnedFd::from_raw_fd(programs)) }
}

fn read_until(screen: &mut File, word: &str) -> String {
    let mut text = String::new();
    let mut bytes = [0; 256];
    while !text.contains(word) {
        // The screen fails with EIO when all programs are gone.
        let length =
            screen.read(&mut bytes).unwrap_or_else(|error| panic!("{error} before {word:?}: {text}"));
        text.push_str(&String::from_utf8_lossy(&bytes[..length]));
    }
    text
}

#[test]
fn a_failure_at_any_step_is_named_and_leaves_nothing() {
    let word = unique("7003");
    let (screen, keyboard_side) = terminal();
    let volume = tempfile::tempdir().expect("tempdir");
    let image = Image::new();
    for step in Step::ALL {
        let launch = Launch {
            failing: *step as u8,
            volumes: vec![(volume.path().to_owned(), "/data", false)],
            files: vec![("/etc/app", "text")],
            ..image.launch(&["sleep", &word])
        };
        // With a terminal there is one step more.
        let failed = match step {
            Step::BindConsole => {
                let mut child = launch.start_on(&keyboard_side);
                child.wait().expect("wait").code()
            }
            // `finish` proves that the mounts are as before.
            _ => {
                let done = launch.finish();
                assert!(
                    done.text().contains(&format!("cannot {}", step.name())),
                    "{step:?}: {}",
                    done.text()
                );
                Some(done.code)
            }
        };
        assert_eq!(failed, Some(125), "{step:?}");
        assert!(!any_process_with(&word), "{step:?}");
    }
    drop((screen, keyboard_side));
    assert_eq!(image.sh("true").finish().code, 0);
}
