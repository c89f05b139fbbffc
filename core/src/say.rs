//! Words on standard error, of processes that must live on whether anybody can read them or not.
//!
//! `eprintln!` panics when the console is gone, a disk is full or a pipe has no reader. Here what cannot be said is lost. Nothing is
//! allocated, and who does not read holds nobody up for longer than a moment.

use std::fmt;
use std::io::Write;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Longest line; the rest of it is lost.
const LINE_MAX: usize = 1024;
/// How long a console may take before it can be written to.
const PATIENCE: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// Says one line.
pub fn say(words: fmt::Arguments<'_>) {
    let mut line = [0; LINE_MAX];
    let mut rest = &mut line[..LINE_MAX - 1];
    // A line that is too long is cut.
    let _ = rest.write_fmt(words);
    let length = LINE_MAX - 1 - rest.len();
    line[length] = b'\n';
    let stderr = rustix::stdio::stderr();
    let mut ready = [PollFd::from_borrowed_fd(stderr, PollFlags::OUT)];
    if matches!(poll(&mut ready, Some(&PATIENCE)), Ok(1..)) {
        // There is nobody who could be told.
        let _ = rustix::io::write(stderr, &line[..=length]);
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;
    use std::os::fd::OwnedFd;
    use std::process::{Command, Stdio};

    use super::*;

    const CHILD: &str = "CORE0_TEST_SAY";

    /// Runs this test again as a child whose standard error is something, and waits for its end.
    fn said_to(stderr: impl Into<Stdio>) -> bool {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "say::tests::what_cannot_be_said_is_lost_and_a_long_line_is_cut"])
            .env(CHILD, "1")
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn()
            .unwrap();
        child.wait().unwrap().success()
    }

    #[test]
    fn what_cannot_be_said_is_lost_and_a_long_line_is_cut() {
        if std::env::var_os(CHILD).is_some() {
            say(format_args!("{}", "x".repeat(2 * LINE_MAX)));
            return say(format_args!("the {}nd", 2));
        }
        let (mut reader, writer) = std::io::pipe().unwrap();
        assert!(said_to(OwnedFd::from(writer)));
        let mut said = String::new();
        reader.read_to_string(&mut said).unwrap();
        assert_eq!(said, format!("{}\nthe 2nd\n", "x".repeat(LINE_MAX - 1)));

        assert!(said_to(File::options().write(true).open("/dev/full").unwrap()), "nothing takes it");
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        assert!(said_to(OwnedFd::from(writer)), "nobody reads");
        let (reader, mut writer) = std::io::pipe().unwrap();
        rustix::io::ioctl_fionbio(&writer, true).unwrap();
        while writer.write(&[0; 4096]).is_ok() {}
        rustix::io::ioctl_fionbio(&writer, false).unwrap();
        assert!(said_to(OwnedFd::from(writer)), "somebody does not read");
        drop(reader);
    }
}
