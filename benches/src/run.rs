//! Running other programs, timing them, and what they used.
//!
//! Each gets a process group of its own, so that Ctrl-C reaches us first and the order of cleaning up is ours.

mod reap;

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::stop;

/// What a program did.
pub struct Ran {
    /// What it printed, if that was caught.
    pub stdout: String,
    /// From its start to its end.
    pub wall: Duration,
    /// User and system time, of it and the children it waited for.
    pub cpu: Duration,
    /// Most memory that it, or one of those children, held. Linux never says less than this program itself holds.
    pub peak_rss_bytes: u64,
}

/// Runs a program to its end; its stderr as the error.
pub fn run(command: &mut Command) -> anyhow::Result<Ran> {
    wait(command.stdout(Stdio::piped()))
}

/// Runs a program to its end; its stdout.
pub fn output(command: &mut Command) -> anyhow::Result<String> {
    Ok(run(command)?.stdout)
}

/// Runs a program to its end without looking at what it prints.
pub fn silent(command: &mut Command) -> anyhow::Result<Ran> {
    wait(command.stdout(Stdio::null()))
}

/// Runs a program to its end even after a signal, to clean up; its stdout.
pub fn always(command: &mut Command) -> anyhow::Result<String> {
    let shown = show(command);
    let child = spawn(command.stdout(Stdio::piped()), &shown)?;
    Ok(finish(child, &shown, Instant::now())?.stdout)
}

/// Runs a program to its end; how long its first line took, and the line.
pub fn first_line(command: &mut Command) -> anyhow::Result<(Duration, String)> {
    stop::check()?;
    let shown = show(command);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).process_group(0);
    let began = Instant::now();
    let mut child = command.spawn().with_context(|| format!("running {shown}"))?;
    let _foreground = stop::Foreground::new(&child);
    let mut line = String::new();
    let pipe = child.stdout.take().context("no stdout")?;
    let read = BufReader::new(pipe).read_line(&mut line);
    let time = began.elapsed();
    let status = child.wait().with_context(|| format!("waiting for {shown}"))?;
    read.with_context(|| format!("reading from {shown}"))?;
    anyhow::ensure!(status.success(), "{shown} failed ({status})");
    Ok((time, line))
}

fn wait(command: &mut Command) -> anyhow::Result<Ran> {
    stop::check()?;
    let shown = show(command);
    let began = Instant::now();
    let child = spawn(command, &shown)?;
    let _foreground = stop::Foreground::new(&child);
    let ran = finish(child, &shown, began);
    // A program that was ended by the signal has failed for no reason of its own.
    stop::check()?;
    ran
}

fn spawn(command: &mut Command, shown: &str) -> anyhow::Result<Child> {
    command.stdin(Stdio::null()).stderr(Stdio::piped()).process_group(0);
    command.spawn().with_context(|| format!("running {shown}"))
}

fn finish(mut child: Child, shown: &str, began: Instant) -> anyhow::Result<Ran> {
    let (stdout, stderr) = streams(&mut child);
    let (status, used) = reap::reap(&child).with_context(|| format!("waiting for {shown}"))?;
    let wall = began.elapsed();
    if !status.success() {
        bail!("{shown} failed ({status}): {}", stderr.trim());
    }
    Ok(Ran { stdout, wall, cpu: used.cpu, peak_rss_bytes: used.peak_rss_bytes })
}

/// Reads both pipes at once: a full one would stop the program.
fn streams(child: &mut Child) -> (String, String) {
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    std::thread::scope(|scope| {
        let errors = scope.spawn(move || text(stderr));
        let said = text(stdout);
        (said, errors.join().unwrap_or_default())
    })
}

fn text(pipe: Option<impl Read>) -> String {
    let mut bytes = Vec::new();
    if let Some(mut pipe) = pipe {
        // What came before an error is still worth showing; the exit status decides.
        let _ = pipe.read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A program with arguments.
pub fn command<S: AsRef<OsStr>>(program: impl AsRef<OsStr>, arguments: &[S]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments);
    command
}

/// A shell pipeline that fails when any part of it does.
pub fn pipeline(script: &str) -> Command {
    command("bash", &["-o", "pipefail", "-c", script])
}

fn show(command: &Command) -> String {
    let mut text = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        text.push(' ');
        text.push_str(&argument.to_string_lossy());
    }
    text
}
