//! The `flist` program beside this one, with a store and a cache of its own.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::Value;

use crate::run::{always, output};

/// How long a daemon may take to end after its last mount: it flushes its cache, and the disk may be busy.
const DAEMON_END: Duration = Duration::from_secs(60);

/// `flist` with its own store and cache.
#[derive(Clone)]
pub struct Flist {
    program: PathBuf,
    /// The store.
    pub store: PathBuf,
    /// The cache.
    pub cache: PathBuf,
}

/// The program that was built together with this one.
pub fn program() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("finding this program")?;
    let program = own.with_file_name("flist");
    anyhow::ensure!(program.exists(), "{} is missing: cargo build -p flist-tools", program.display());
    Ok(program)
}

impl Flist {
    /// With store and cache below one folder.
    pub fn new(folder: &Path) -> anyhow::Result<Flist> {
        Ok(Flist { program: program()?, store: folder.join("store"), cache: folder.join("cache") })
    }

    /// With this store and this cache.
    pub fn at(store: &Path, cache: &Path) -> anyhow::Result<Flist> {
        Ok(Flist { program: program()?, store: store.to_owned(), cache: cache.to_owned() })
    }

    /// A call with these arguments.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let spec = format!("dir:{}", self.store.display());
        let mut command = Command::new(&self.program);
        command.args(arguments).env("G8_FROM", &spec).env("G8_TO", &spec).env("G8_CACHE", &self.cache);
        command
    }

    /// Runs a call that prints JSON.
    pub fn json(&self, arguments: &[&str]) -> anyhow::Result<Value> {
        let mut command = self.command(arguments);
        command.arg("--json");
        serde_json::from_str(&output(&mut command)?).context("flist printed no JSON")
    }

    /// Mounts with these options; the mount goes when the returned value does.
    pub fn mount(&self, reference: &str, at: &Path, options: &[&str]) -> anyhow::Result<Mounted> {
        std::fs::create_dir_all(at)?;
        let place = at.to_string_lossy();
        let mut arguments = vec!["mount", reference, &place];
        arguments.extend(options);
        let opened = self.json(&arguments)?;
        Ok(Mounted { flist: self.clone(), at: at.to_owned(), opened, ended: false })
    }
}

/// A mount that is ended on drop, also when a step failed.
pub struct Mounted {
    flist: Flist,
    at: PathBuf,
    opened: Value,
    ended: bool,
}

impl Mounted {
    /// Where it is mounted.
    pub fn at(&self) -> &Path {
        &self.at
    }

    /// What `flist mount` said.
    pub fn opened(&self) -> &Value {
        &self.opened
    }

    /// The daemon's process.
    pub fn pid(&self) -> Option<u32> {
        self.opened["pid"].as_u64().and_then(|pid| pid.try_into().ok())
    }

    /// What the daemon says about it.
    pub fn status(&self) -> anyhow::Result<Value> {
        let own = self.all()?.into_iter().find(|m| m["mountpoint"].as_str() == self.at.to_str());
        own.with_context(|| format!("{} is not among the mounts", self.at.display()))
    }

    /// What the daemon says about its cache.
    pub fn cache_stats(&self) -> anyhow::Result<Value> {
        self.flist.json(&["cache", "stats"])
    }

    /// Unmounts, and waits for the daemon's end if this was its last mount.
    pub fn end(&mut self) -> anyhow::Result<()> {
        if std::mem::replace(&mut self.ended, true) {
            return Ok(());
        }
        let at = self.at.to_string_lossy();
        let gone = always(&mut self.flist.command(&["umount", &at]));
        if gone.is_err() {
            always(&mut self.flist.command(&["umount", "--lazy", &at]))?;
        }
        gone?;
        let Some(pid) = self.pid() else { return Ok(()) };
        if self.all()?.iter().any(|m| m["pid"].as_u64() == Some(pid.into())) {
            return Ok(());
        }
        let limit = Instant::now() + DAEMON_END;
        while lives(pid) {
            anyhow::ensure!(Instant::now() < limit, "daemon {pid} has no mount and does not end");
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    fn all(&self) -> anyhow::Result<Vec<Value>> {
        // It asks the daemons of all caches, and fails beside its list when a stranger's is just ending: so its list
        // counts, not how it ends.
        let mut command = self.flist.command(&["mounts", "--json"]);
        let said = command.stdin(Stdio::null()).process_group(0).output().context("running flist mounts")?;
        let errors = || String::from_utf8_lossy(&said.stderr).into_owned();
        serde_json::from_slice(&said.stdout).with_context(errors).context("flist mounts printed no JSON")
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("{error:#}");
        }
    }
}

/// Whether a process runs: one that has ended and was not waited for yet does not.
fn lives(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    state.is_some_and(|state| state != 'Z' && state != 'X')
}
