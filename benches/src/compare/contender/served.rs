//! A file system that a child of ours serves in the foreground.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{Pid, Signal, kill_process};

use crate::compare::results::Extras;
use crate::stop;

/// How long it may take to be there, and to go.
const LIMIT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_micros(100);

/// Ended on drop.
pub(super) struct Served {
    child: Child,
    place: PathBuf,
    ended: bool,
}

impl Served {
    pub(super) fn start(command: &mut Command, place: &Path) -> anyhow::Result<Served> {
        command.stdin(Stdio::null()).process_group(0);
        let child = command.spawn().with_context(|| format!("running {:?}", command.get_program()))?;
        Ok(Served { child, place: place.to_owned(), ended: false })
    }

    pub(super) fn place(&self) -> &Path {
        &self.place
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the first line on its stdout, which must be a pipe.
    pub(super) fn first_line(&mut self) -> anyhow::Result<String> {
        let _foreground = stop::Foreground::new(&self.child);
        let pipe = self.child.stdout.as_mut().context("no stdout")?;
        let mut line = String::new();
        BufReader::new(pipe).read_line(&mut line)?;
        Ok(line)
    }

    /// Waits until another file system is at its place.
    pub(super) fn wait_mounted(&mut self) -> anyhow::Result<()> {
        let limit = Instant::now() + LIMIT;
        while !self.is_mounted() {
            stop::check()?;
            if let Some(status) = self.child.try_wait()? {
                anyhow::bail!("it ended before it had mounted: {status}");
            }
            anyhow::ensure!(Instant::now() < limit, "nothing is mounted after {LIMIT:?}");
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    fn is_mounted(&self) -> bool {
        let device = |path: &Path| fs::symlink_metadata(path).ok().map(|meta| meta.dev());
        device(&self.place) != self.place.parent().and_then(device)
    }

    pub(super) fn end(&mut self) -> anyhow::Result<()> {
        if std::mem::replace(&mut self.ended, true) {
            return Ok(());
        }
        let pid = Pid::from_child(&self.child);
        if self.child.try_wait()?.is_none() {
            kill_process(pid, Signal::TERM)?;
        }
        let limit = Instant::now() + LIMIT;
        while self.child.try_wait()?.is_none() {
            if Instant::now() > limit {
                self.child.kill()?;
            }
            std::thread::sleep(POLL);
        }
        // It should have unmounted; a killed one has not.
        if self.is_mounted() {
            unmount(&self.place, UnmountFlags::DETACH)?;
        }
        Ok(())
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("{error:#}");
        }
    }
}

/// Memory of a process, all of it and what is its own.
pub(super) fn process_memory(pid: u32) -> anyhow::Result<Extras> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).context("looking at a daemon's memory")?;
    let mut memory = Extras::new();
    for (key, field) in [("rss_bytes", "VmRSS:"), ("rss_anon_bytes", "RssAnon:")] {
        let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_suffix("kB"));
        let kib: f64 = line.with_context(|| format!("no {field}"))?.trim().parse()?;
        memory.insert(key, kib * 1024.0);
    }
    Ok(memory)
}
