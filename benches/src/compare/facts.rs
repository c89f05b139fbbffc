//! Where, when and with what the numbers were made.

use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::bench::Bench;
use super::contender::{Contenders, nydus_program};
use super::options::Options;
use super::trees::{Made, Tree};
use crate::flist;
use crate::machine::{describe, kernel};
use crate::run::{command, output};

/// What has to be known to compare the numbers with others.
pub(super) struct Facts {
    when: Timestamp,
    took: Duration,
    rounds: usize,
    quick: bool,
    results: PathBuf,
    commit: String,
    versions: Vec<(&'static str, String)>,
    trees: Vec<(Tree, Made)>,
    left_out: Vec<String>,
}

impl Facts {
    pub(super) fn gather(
        options: &Options,
        bench: &Bench,
        contenders: &Contenders,
        took: Duration,
    ) -> anyhow::Result<Facts> {
        Ok(Facts {
            when: Timestamp::now(),
            took,
            rounds: options.rounds(),
            quick: options.quick,
            results: options.results.clone(),
            commit: commit(),
            versions: versions()?,
            trees: bench.trees.used(),
            left_out: contenders.left_out.clone(),
        })
    }

    /// The path of the files that are kept, without its ending.
    pub(super) fn stem(&self) -> PathBuf {
        let quick = if self.quick { "-quick" } else { "" };
        self.results.join(format!("{}{quick}", self.when.strftime("%Y-%m-%d-%H%M%S")))
    }

    /// One line about the machine and the run.
    pub(super) fn line(&self) -> String {
        let kind = if self.quick { "quick run, " } else { "" };
        let (minutes, seconds) = (self.took.as_secs() / 60, self.took.as_secs() % 60);
        let rounds = self.rounds;
        format!("{}; {kind}{rounds} rounds in {minutes} min {seconds} s; commit {}", describe(), self.commit)
    }

    /// What stands above the tables.
    pub(super) fn header(&self) -> String {
        let mut lines = vec![self.line(), String::new()];
        for (tree, made) in &self.trees {
            let megabytes = made.bytes as f64 / 1e6;
            lines.push(format!("- tree `{}`: {} entries, {megabytes:.1} MB", tree.name(), made.entries));
        }
        lines.extend(self.versions.iter().map(|(program, version)| format!("- {program}: {version}")));
        lines.extend(self.left_out.iter().map(|name| format!("- left out: {name}")));
        lines.join("\n")
    }

    pub(super) fn document(&self) -> Value {
        let versions: serde_json::Map<_, _> =
            self.versions.iter().map(|(name, version)| ((*name).to_owned(), json!(version))).collect();
        let trees: serde_json::Map<_, _> = self
            .trees
            .iter()
            .map(|(tree, made)| {
                (tree.name().to_owned(), json!({ "entries": made.entries, "bytes": made.bytes }))
            })
            .collect();
        json!({
            "when": self.when.to_string(), "took_seconds": self.took.as_secs(), "rounds": self.rounds,
            "quick": self.quick, "machine": describe(), "kernel": kernel(), "commit": self.commit,
            "versions": versions, "trees": trees, "left_out": self.left_out,
        })
    }
}

/// The commit of the sources, and whether they were changed since.
fn commit() -> String {
    let git = |arguments: &[&str]| {
        let mut call = command("git", &["-C", env!("CARGO_MANIFEST_DIR")]);
        output(call.args(arguments)).map(|said| said.trim().to_owned())
    };
    let Ok(commit) = git(&["rev-parse", "--short=12", "HEAD"]) else { return "unknown".to_owned() };
    let changed = git(&["status", "--porcelain", "--untracked-files=no"]).is_ok_and(|said| !said.is_empty());
    if changed { format!("{commit}, changed") } else { commit }
}

/// What each program says about itself.
fn versions() -> anyhow::Result<Vec<(&'static str, String)>> {
    let mut versions = vec![("flist", version(&flist::program()?, "--version"))];
    if let Ok(program) = nydus_program() {
        versions.push(("nydus-peer", version(&program, "--version")));
    }
    for (program, flag) in [
        ("curl", "--version"),
        ("tar", "--version"),
        ("zstd", "--version"),
        ("mksquashfs", "-version"),
        ("mkfs.erofs", "-V"),
        ("squashfuse_ll", "--version"),
    ] {
        versions.push((program, version(Path::new(program), flag)));
    }
    Ok(versions)
}

/// The first line with a number like 1.5 in it, on either stream: some answer there, with an error.
fn version(program: &Path, flag: &str) -> String {
    let Ok(said) = std::process::Command::new(program).arg(flag).output() else {
        return "missing".to_owned();
    };
    let text = [said.stdout, said.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().find(|line| {
        line.as_bytes().windows(3).any(|w| w[0].is_ascii_digit() && w[1] == b'.' && w[2].is_ascii_digit())
    });
    line.unwrap_or("unknown").trim().to_owned()
}
