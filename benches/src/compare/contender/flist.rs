//! Ours, in each mode that the program offers.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

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
