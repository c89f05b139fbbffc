//! Ours, in each mode that the program offers.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use serde_json::Value;

use super::served::process_memory;
use super::{Cache, Image, Keeps, Mount, Packer, Reader, packed_cid};
use crate::compare::results::Extras;
use crate::flist::{self, Mounted};
use crate::run::{command, output};

/// Names of the packer and of both ways to mount.
pub(in crate::compare) const PACK: &str = "flist";
pub(in crate::compare) const KERNEL: &str = "flist kernel";
pub(in crate::compare) const FUSE: &str = "flist fuse";

pub(in crate::compare) struct Pack;

impl Packer for Pack {
    fn name(&self) -> &str {
        PACK
    }

    fn command(&self, tree: &Path, out: &Path) -> anyhow::Result<Command> {
        // Packing uses no cache; the environment's is not to be touched all the same.
        let flist = flist::Flist::at(out, &out.with_extension("cache"))?;
        Ok(flist.command(&["pack", "--json", &tree.to_string_lossy()]))
    }
}

/// A way to mount.
#[derive(Clone, Copy)]
pub(super) enum Mode {
    Kernel,
    Fuse,
}

/// Those that this program has.
pub(super) fn modes() -> anyhow::Result<Vec<Mode>> {
    let help = output(&mut command(flist::program()?, &["mount", "--help"]))?;
    let has_kernel = help.lines().any(|line| line.trim_start().starts_with("- kernel:"));
    Ok(if has_kernel { vec![Mode::Kernel, Mode::Fuse] } else { vec![Mode::Fuse] })
}

impl Mode {
    /// As `--mode` takes it.
    pub(super) fn option(self) -> &'static str {
        match self {
            Mode::Kernel => "kernel",
            Mode::Fuse => "fuse",
        }
    }
}

/// What the row `start` runs, and profiles are recorded of.
pub(in crate::compare) const PROGRAM: [&str; 3] = ["/usr/bin/python3", "-c", "print(1)"];

/// What work on an image cannot do without, in bytes as they are stored: those of the blocks that its reads lie in, and all
/// metadata, without which nothing is mounted. The reads are those of the kernel: a page that a program faults in comes with those
/// around it.
#[derive(Clone, Copy)]
pub(in crate::compare) struct Needed {
    /// The start of [`PROGRAM`], as a profile of it in mode fuse tells.
    pub(in crate::compare) start: f64,
    /// Reading everything.
    pub(in crate::compare) all: f64,
}

impl Needed {
    pub(in crate::compare) fn of(image: &Image) -> anyhow::Result<Needed> {
        let report = report(image)?;
        let metadata = report["metadata_bytes"].as_f64().context("how large is the metadata?")?;
        let stored = report["stored_bytes"].as_f64().context("how large are the blocks?")?;
        let shown = of(image)?.json(&["profile", "show", &profiled(image, Mode::Fuse)?])?;
        let start = shown["stored_bytes"].as_f64().context("how large are the blocks of a profile?")?;
        Ok(Needed { start: start + metadata, all: stored + metadata })
    }
}

/// What `flist pack` said.
fn report(image: &Image) -> anyhow::Result<Value> {
    serde_json::from_str(&image.said).context("flist pack printed no JSON")
}

/// Whoever works with the store of an image beside the contenders, with a cache of its own.
fn of(image: &Image) -> anyhow::Result<flist::Flist> {
    flist::Flist::at(&image.folder, &image.folder.with_extension("cache"))
}

/// The reference of the image with a profile, which is recorded in its store when it is first asked for.
pub(super) fn profiled(image: &Image, mode: Mode) -> anyhow::Result<String> {
    let kept = image.folder.with_extension(format!("profiled-{}", mode.option()));
    if !kept.exists() {
        let arguments = ["profile", "record", &packed_cid(image)?, "--mode", mode.option(), "--"];
        let said = output(of(image)?.command(&arguments).args(PROGRAM))?;
        fs::write(&kept, said.trim()).context("keeping the reference of a profile")?;
    }
    fs::read_to_string(&kept).context("reading the reference of a profile")
}

pub(super) struct Flist {
    name: &'static str,
    mode: &'static str,
}

impl Flist {
    pub(super) fn new(mode: Mode) -> Flist {
        let name = match mode {
            Mode::Kernel => KERNEL,
            Mode::Fuse => FUSE,
        };
        Flist { name, mode: mode.option() }
    }
}

impl Reader for Flist {
    fn name(&self) -> &str {
        self.name
    }

    fn packer(&self) -> Option<Box<dyn Packer>> {
        Some(Box::new(Pack))
    }

    fn mount(&self, image: &Image, at: &Path, kept: &Path, cache: Cache) -> anyhow::Result<Box<dyn Mount>> {
        let cid = packed_cid(image)?;
        let mut options = vec!["--mode", self.mode];
        if cache != Cache::Empty {
            options.push("--cache-local");
        }
        let mounted = flist::Flist::at(&image.folder, kept)?.mount(&cid, at, &options)?;
        let mode = mounted.opened()["mode"].as_str();
        anyhow::ensure!(mode == Some(self.mode), "asked for mode {}, got {mode:?}", self.mode);
        Ok(Box::new(mounted))
    }

    fn program(&self) -> Option<PathBuf> {
        flist::program().ok()
    }

    fn keeps(&self) -> Keeps {
        Keeps::IfTold
    }

    fn shares_daemon(&self) -> bool {
        true
    }
}

impl Mount for Mounted {
    fn place(&self) -> &Path {
        self.at()
    }

    fn end(&mut self) -> anyhow::Result<()> {
        Mounted::end(self)
    }

    fn opened_inside_ms(&self) -> Option<f64> {
        let field = |key: &str| self.opened()[key].as_f64();
        Some(field("open_ms")? + field("mount_ms")?)
    }

    fn traffic(&self) -> anyhow::Result<Extras> {
        let status = self.status()?;
        anyhow::ensure!(status["errors"].as_u64() == Some(0), "reads failed: {status}");
        let mut moved = Extras::new();
        for (key, field) in [("fetched_bytes", "bytes_fetched"), ("decoded_bytes", "bytes_decoded")] {
            moved.extend(status[field].as_f64().map(|n| (key, n)));
        }
        let sources = status["sources"].as_array().map_or(&[][..], Vec::as_slice);
        moved.insert("fetches", sources.iter().filter_map(|source| source["requests"].as_f64()).sum());
        Ok(moved)
    }

    fn memory(&self) -> anyhow::Result<Option<Extras>> {
        let mut memory = process_memory(self.pid().context("flist mount named no process")?)?;
        memory.extend(self.cache_stats()?["memory"]["budget"].as_f64().map(|n| ("budget_bytes", n)));
        Ok(Some(memory))
    }
}
