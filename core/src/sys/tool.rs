//! Running a tool of the system: argv, never a shell; its output and its time are bounded.
//!
//! A tool runs in a process group of its own, so that a deadline ends its children too, with a fixed environment, so that
//! its words do not depend on who started the node.

use std::ffi::{OsStr, OsString};
use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group, setpriority_pgrp};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::sync::Semaphore;

/// Most a tool may print on stdout; more is an error, since a cut document would be a wrong one.
const MAX_STDOUT: usize = 8 << 20;
/// What is kept of stderr, from its end.
const MAX_STDERR: usize = 16 << 10;
/// How long a tool may take when the caller has no reason to say otherwise.
const DEADLINE: Duration = Duration::from_secs(30);
/// Most tools at once; whoever asks for more waits. The callers of a node may ask for thousands in a second.
static AT_ONCE: Semaphore = Semaphore::const_new(32);
/// Where tools are looked for when the node was started without a PATH, as PID 1 is.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Why a tool did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// It is not installed.
    #[error("{0} is not installed on this node")]
    Missing(String),
    /// It could not be started, or its pipes broke.
    #[error("running {0}")]
    Io(String, #[source] io::Error),
    /// It was killed at its deadline.
    #[error("{0} did not end within {1:?} and was killed")]
    TimedOut(String, Duration),
    /// It prints more than a node reads.
    #[error("{0} printed more than {MAX_STDOUT} bytes")]
    TooMuch(String),
    /// It ended with an error.
    #[error("{program} failed ({status}): {stderr}")]
    Failed {
        /// Its name.
        program: String,
        /// How it ended.
        status: ExitStatus,
        /// The end of what it said.
        stderr: String,
    },
}

/// A tool and its arguments.
#[derive(Clone, Debug)]
pub struct Tool {
    program: String,
    arguments: Vec<OsString>,
    stdin: Vec<u8>,
    deadline: Duration,
    niceness: i32,
}

impl Tool {
    /// A tool that is found in PATH.
    pub fn new(program: &str) -> Self {
        let program = program.to_owned();
        Tool { program, arguments: Vec::new(), stdin: Vec::new(), deadline: DEADLINE, niceness: 0 }
    }

    /// Adds an argument.
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    pub fn args<S: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.arguments.extend(arguments.into_iter().map(|a| a.as_ref().to_owned()));
        self
    }

    /// What it reads; nothing by default.
    pub fn stdin(mut self, text: impl Into<Vec<u8>>) -> Self {
        self.stdin = text.into();
        self
    }

    /// How long it may take.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// It has what all else leaves of the processor.
    pub fn background(mut self) -> Self {
        self.niceness = 19;
        self
    }

    /// Runs it to its end and returns what it printed. Dropping the future kills it.
    pub async fn run(self) -> Result<String, ToolError> {
        let _place = AT_ONCE.acquire().await.expect("it is never closed");
        let mut command = command(&self.program);
        command.args(&self.arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => ToolError::Missing(self.program.clone()),
            _ => ToolError::Io(self.program.clone(), e),
        })?;
        let mut group = Group(child);
        if self.niceness > 0 {
            group.renice(self.niceness);
        }
        let ended = tokio::time::timeout(self.deadline, converse(&mut group.0, &self.stdin)).await;
        let conversed = ended.map_err(|_| ToolError::TimedOut(self.program.clone(), self.deadline))?;
        let io_error = |e| ToolError::Io(self.program.clone(), e);
        let (status, stdout, stderr) = conversed.map_err(io_error)?;
        if stdout.len() > MAX_STDOUT {
            return Err(ToolError::TooMuch(self.program));
        }
        if !status.success() {
            // Some tools complain on stdout.
            let said = if stderr.trim_ascii().is_empty() { &stdout } else { &stderr };
            let stderr = last_text(said);
            return Err(ToolError::Failed { program: self.program, status, stderr });
        }
        Ok(String::from_utf8_lossy(&stdout).into_owned())
    }
}

/// A command with the environment and the process group of a tool; killed when it is dropped.
pub fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("LC_ALL", "C")
        .env("PATH", std::env::var_os("PATH").unwrap_or_else(|| DEFAULT_PATH.into()))
        .current_dir("/")
        .process_group(0)
        .kill_on_drop(true);
    command
}

/// A child that does not outlive the interest in it, nor does what it started.
struct Group(Child);

impl Group {
    /// Until it is waited for, its pid names it and its group.
    fn pid(&self) -> Option<Pid> {
        self.0.id().and_then(|pid| Pid::from_raw(pid as i32))
    }

    fn renice(&self, niceness: i32) {
        let Some(pid) = self.pid() else { return };
        if let Err(error) = setpriority_pgrp(Some(pid), niceness) {
            tracing::warn!(%error, "a tool runs before others, though it should not");
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let Some(pid) = self.pid() else { return };
        if let Err(error) = kill_process_group(pid, Signal::KILL)
            && error != rustix::io::Errno::SRCH
        {
            tracing::warn!(%error, pid = pid.as_raw_pid(), "a tool goes on after its deadline");
        }
    }
}

async fn converse(child: &mut Child, stdin: &[u8]) -> io::Result<(ExitStatus, Vec<u8>, Vec<u8>)> {
    let mut to = child.stdin.take().expect("stdin is a pipe");
    let out = child.stdout.take().expect("stdout is a pipe");
    let err = child.stderr.take().expect("stderr is a pipe");
    let feed = async move {
        match to.write_all(stdin).await {
            // A tool that does not read all of its input says why on stderr.
            Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(e),
            Ok(()) | Err(_) => Ok(()),
        }
    };
    let ((), stdout, stderr) = tokio::try_join!(feed, first(out), last(err))?;
    Ok((child.wait().await?, stdout, stderr))
}

/// The first bytes, one more than allowed when there are more. Then it stops reading: the tool ends by the broken pipe.
async fn first(from: impl AsyncRead + Unpin) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(MAX_STDOUT as u64 + 1).read_to_end(&mut bytes).await?;
    Ok(bytes)
}

/// The last bytes.
async fn last(mut from: impl AsyncRead + Unpin) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let n = from.read(&mut buffer).await?;
        if n == 0 {
            return Ok(bytes);
        }
        bytes.extend_from_slice(&buffer[..n]);
        if bytes.len() > 2 * MAX_STDERR {
            bytes.drain(..bytes.len() - MAX_STDERR);
        }
    }
}

/// A report of one paragraph from the end of what a tool said.
fn last_text(said: &[u8]) -> String {
    let tail = &said[said.len().saturating_sub(MAX_STDERR)..];
    let text = String::from_utf8_lossy(tail);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
    let kept = &lines[lines.len().saturating_sub(8)..];
    if kept.is_empty() { "it said nothing".to_owned() } else { kept.join("; ") }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[tokio::test]
    async fn what_a_tool_prints_is_returned() {
        let said = Tool::new("cat").stdin("a line\n").run().await.unwrap();
        assert_eq!(said, "a line\n");
    }

    #[tokio::test]
    async fn what_runs_in_the_background_is_as_nice_as_can_be() {
        let said = Tool::new("sh").args(["-c", "read go; nice"]).stdin("go\n").background().run().await;
        assert_eq!(said.unwrap(), "19\n");
    }

    #[tokio::test]
    async fn arguments_are_not_read_by_a_shell() {
        let said = Tool::new("printf").args(["%s", "$(id); `id` *"]).run().await.unwrap();
        assert_eq!(said, "$(id); `id` *");
    }

    #[tokio::test]
    async fn a_failure_carries_the_words_of_the_tool() {
        let error = Tool::new("ls").arg("/no/such/place").run().await.unwrap_err();
        let ToolError::Failed { ref stderr, .. } = error else { panic!("{error:?}") };
        assert!(stderr.contains("/no/such/place"), "{stderr}");
    }

    #[tokio::test]
    async fn a_tool_that_is_not_installed_is_named() {
        let error = Tool::new("no-such-tool").run().await.unwrap_err();
        assert_eq!(error.to_string(), "no-such-tool is not installed on this node");
    }

    #[tokio::test]
    async fn endless_output_is_refused() {
        let error = Tool::new("yes").run().await.unwrap_err();
        assert!(matches!(error, ToolError::TooMuch(_)), "{error:?}");
    }

    #[tokio::test]
    async fn input_that_is_not_read_does_not_hang() {
        let said = Tool::new("true").stdin(vec![b'x'; 1 << 20]).run().await.unwrap();
        assert_eq!(said, "");
    }

    #[tokio::test]
    async fn a_deadline_ends_the_tool_and_its_children() {
        let mark = format!("{}.{}", 86_400, std::process::id());
        let script = format!("sleep {mark} & wait");
        let began = Instant::now();
        let tool = Tool::new("sh").args(["-c", &script]).deadline(Duration::from_millis(300));
        let error = tool.run().await.unwrap_err();
        assert!(matches!(error, ToolError::TimedOut(..)), "{error:?}");
        let end = began + Duration::from_secs(30);
        while sleeps(&mark) {
            assert!(Instant::now() < end, "the child of a killed tool lives");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn sleeps(mark: &str) -> bool {
        let processes = std::fs::read_dir("/proc").unwrap();
        processes.flatten().any(|p| {
            std::fs::read(p.path().join("cmdline")).is_ok_and(|c| c == format!("sleep\0{mark}\0").as_bytes())
        })
    }
}
