//! Runs a command with a deadline and keeps all it said.
//!
//! Output goes to unnamed files, not pipes: a daemon that the command leaves behind would hold a pipe open for ever.

use std::fs::File;
use std::io::{Read, Seek};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::wait;

/// How long a command may take unless the test says less. Debug builds on two shared cores are slow.
pub const PATIENCE: Duration = Duration::from_secs(240);

/// What a command did.
#[derive(Debug)]
pub struct Outcome {
    /// The command line, for messages.
    pub command: String,
    /// Exit code, or 128 + the signal that ended it.
    pub code: i32,
    /// All of standard output.
    pub stdout: Vec<u8>,
    /// All of standard error.
    pub stderr: String,
    /// Wall time.
    pub took: Duration,
}

impl Outcome {
    /// Panics with everything known unless the exit code is `code`.
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(
            self.code,
            code,
            "{}\nexit code {} after {:?}, expected {code}\nstdout: {}\nstderr: {}",
            self.command,
            self.code,
            self.took,
            self.text(),
            self.stderr
        );
        self
    }

    /// Panics unless it succeeded.
    #[track_caller]
    pub fn ok(self) -> Self {
        self.exits(0)
    }

    /// Standard output as text without the last newline.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).trim_end_matches('\n').to_owned()
    }

    /// Standard output as JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.stdout)
            .unwrap_or_else(|e| panic!("{}: no JSON on stdout ({e}): {}", self.command, self.text()))
    }
}

/// Runs `command` without input to its end; panics when that takes longer than `limit`.
#[track_caller]
pub fn run(command: &mut Command, limit: Duration) -> Outcome {
    let line = describe(command);
    let (mut out, mut err) = (unnamed(), unnamed());
    let start = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(clone(&out))
        .stderr(clone(&err))
        .spawn()
        .unwrap_or_else(|e| panic!("cannot start {line}: {e}"));
    let in_time = wait::ends(child.id() as i32, limit);
    if !in_time {
        let _ = child.kill();
    }
    let status = child.wait().expect("our own child can be waited for");
    let outcome = Outcome {
        command: line,
        code: code(status),
        stdout: content(&mut out),
        stderr: String::from_utf8_lossy(&content(&mut err)).into_owned(),
        took: start.elapsed(),
    };
    assert!(in_time, "killed after {limit:?}: {outcome:#?}");
    outcome
}

/// Runs a tool of the system and panics unless it succeeds.
#[track_caller]
pub fn tool(name: &str, args: impl IntoIterator<Item = std::ffi::OsString>) -> Outcome {
    run(Command::new(name).args(args), PATIENCE).ok()
}

fn describe(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|a| a.to_string_lossy().into_owned()));
    words.join(" ")
}

fn code(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

fn unnamed() -> File {
    tempfile::tempfile().expect("a temporary file for the output")
}

fn clone(file: &File) -> File {
    file.try_clone().expect("a second descriptor of an open file")
}

fn content(file: &mut File) -> Vec<u8> {
    let mut bytes = Vec::new();
    file.rewind().expect("a file can be rewound");
    file.read_to_end(&mut bytes).expect("our own file can be read");
    bytes
}
