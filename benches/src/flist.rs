//! The `flist` program beside this one, with a store and a cache of its own.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use serde_json::Value;

use crate::run::output;

/// `flist` with its own store and cache below one folder.
pub struct Flist {
    program: PathBuf,
    /// The store.
    pub store: PathBuf,
    /// The cache.
    pub cache: PathBuf,
}

impl Flist {
    /// Uses the program that was built together with this one.
    pub fn new(folder: &Path) -> anyhow::Result<Flist> {
        let own = std::env::current_exe().context("finding this program")?;
        let program = own.with_file_name("flist");
        anyhow::ensure!(program.exists(), "{} is missing: cargo build -p flist-tools", program.display());
        Ok(Flist { program, store: folder.join("store"), cache: folder.join("cache") })
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

    /// Mounts; the mount goes when the returned value does.
    pub fn mount<'a>(&'a self, reference: &str, at: &Path) -> anyhow::Result<Mounted<'a>> {
        std::fs::create_dir_all(at)?;
        output(&mut self.command(&["mount", reference, &at.to_string_lossy()]))?;
        Ok(Mounted { flist: self, at: at.to_owned() })
    }
}

/// A mount that is ended on drop, also when a step failed.
pub struct Mounted<'a> {
    flist: &'a Flist,
    at: PathBuf,
}

impl Mounted<'_> {
    /// What the daemon says about it.
    pub fn status(&self) -> anyhow::Result<Value> {
        let all = self.flist.json(&["mounts"])?;
        let own = all
            .as_array()
            .and_then(|list| list.iter().find(|m| m["mountpoint"].as_str() == self.at.to_str()).cloned());
        own.with_context(|| format!("{} is not among the mounts", self.at.display()))
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let at = self.at.to_string_lossy();
        if let Err(error) = output(&mut self.flist.command(&["umount", "--lazy", &at])) {
            eprintln!("{error:#}");
        }
    }
}
