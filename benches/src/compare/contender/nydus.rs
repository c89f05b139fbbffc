//! nydus v3 through its crates: `nydus-peer` of `benches/peers`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use serde_json::Value;

use super::served::{Served, process_memory};
use super::{Cache, Image, Keeps, Mount, Packer, Reader};
use crate::compare::results::Extras;
use crate::compare::work::bytes_below;
use crate::run::command;

pub(in crate::compare) const NAME: &str = "nydus v3";
const NAME_VERIFYING: &str = "nydus v3 verifying";
/// Rows in which it makes a difference whether it verifies.
const ROWS_VERIFYING: [&str; 2] = ["tar", "random"];

/// Where the rival's program is.
pub(in crate::compare) fn program() -> anyhow::Result<PathBuf> {
    if let Some(named) = std::env::var_os("G8_NYDUS_PEER") {
        let named = PathBuf::from(named);
        anyhow::ensure!(named.exists(), "G8_NYDUS_PEER names {}, which is not there", named.display());
        return Ok(named);
    }
    let own = std::env::current_exe().context("finding this program")?;
    let built = concat!(env!("CARGO_MANIFEST_DIR"), "/peers/target/release/nydus-peer");
    let places = [own.with_file_name("nydus-peer"), PathBuf::from(built)];
    match places.into_iter().find(|place| place.exists()) {
        Some(program) => Ok(program),
        None => bail!(
            "the rival nydus-peer is not built: cargo build --release --locked --manifest-path \
             benches/peers/Cargo.toml, or name it in G8_NYDUS_PEER, or leave it out with --without nydus"
        ),
    }
}

pub(super) struct Pack {
    program: PathBuf,
}

impl Pack {
    pub(super) fn new(program: &Path) -> Pack {
        Pack { program: program.to_owned() }
    }
}

impl Packer for Pack {
    fn name(&self) -> &str {
        NAME
    }

    fn command(&self, tree: &Path, out: &Path) -> anyhow::Result<Command> {
        Ok(command(&self.program, &["pack".as_ref(), tree.as_os_str(), out.as_os_str()]))
    }
}

/// Whether it proves what it reads; by itself it does not.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Verify {
    No,
    Yes,
}

pub(super) struct Nydus {
    program: PathBuf,
    verify: Verify,
}

impl Nydus {
    pub(super) fn new(program: &Path, verify: Verify) -> Nydus {
        Nydus { program: program.to_owned(), verify }
    }
}

impl Reader for Nydus {
    fn name(&self) -> &str {
        match self.verify {
            Verify::No => NAME,
            Verify::Yes => NAME_VERIFYING,
        }
    }

    fn packer(&self) -> Option<Box<dyn Packer>> {
        Some(Box::new(Pack::new(&self.program)))
    }

    fn mount(&self, image: &Image, at: &Path, kept: &Path, _: Cache) -> anyhow::Result<Box<dyn Mount>> {
        let mut call = command(&self.program, &["mount".as_ref(), image.folder.as_os_str(), at.as_os_str()]);
        call.arg("--cache").arg(kept);
        if self.verify == Verify::Yes {
            call.arg("--verify");
        }
        let mut served = Served::start(call.stdout(Stdio::piped()), at)?;
        let ready: Value = serde_json::from_str(&served.first_line()?).context("nydus-peer is not ready")?;
        anyhow::ensure!(ready["ready"].as_bool() == Some(true), "nydus-peer is not ready: {ready}");
        Ok(Box::new(Mounted { served, ready, kept: kept.to_owned() }))
    }

    fn program(&self) -> Option<PathBuf> {
        Some(self.program.clone())
    }

    fn keeps(&self) -> Keeps {
        match self.verify {
            Verify::No => Keeps::All,
            // It keeps all as well, but serves it as the other one does: that is measured once.
            Verify::Yes => Keeps::Nothing,
        }
    }

    fn enters(&self, row: &str) -> bool {
        self.verify == Verify::No || ROWS_VERIFYING.contains(&row)
    }
}

struct Mounted {
    served: Served,
    ready: Value,
    kept: PathBuf,
}

impl Mount for Mounted {
    fn place(&self) -> &Path {
        self.served.place()
    }

    fn end(&mut self) -> anyhow::Result<()> {
        self.served.end()
    }

    fn opened_inside_ms(&self) -> Option<f64> {
        Some(self.ready["open_ms"].as_f64()? + self.ready["mount_ms"].as_f64()?)
    }

    /// It counts nothing itself. What it keeps is decoded, so this is what it has decoded.
    fn traffic(&self) -> anyhow::Result<Extras> {
        let (_, on_disk) = bytes_below(&self.kept)?;
        Ok(Extras::from([("cache_bytes", on_disk as f64)]))
    }

    fn memory(&self) -> anyhow::Result<Option<Extras>> {
        process_memory(self.served.pid()).map(Some)
    }
}
