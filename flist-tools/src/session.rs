//! An image opened in this process, for commands that look into it once and mount nothing.

use std::time::Instant;

use anyhow::Context;
use g8_cache::{BlockId, MAX_SOURCES, Sources};
use g8_fs::check::memory_cache;
use g8_fs::erofs::Inode;
use g8_fs::filesystem::Filesystem;
use g8_fs::image::Image;
use g8_fs::names::Names;
use g8_fs::paths::{self, Last};
use g8_fs::reference::{Reference, Target, resolve};
use g8_fs::source::{SourceOptions, Spec, SpecError, open_sources_of};
use tokio::runtime::Runtime;

use crate::cli::Global;
use crate::{defaults, network, output};

/// Decoded frames kept in memory while a command runs.
const MEMORY: u64 = 64 << 20;

/// An opened image and the threads that fetch for it.
pub struct Session {
    /// Runs fetches.
    pub runtime: Fetchers,
    /// The image.
    pub fs: Filesystem,
}

impl Session {
    /// Opens the image `reference` from the sources that `global` names, and from those that it hints at.
    pub fn open(global: &Global, reference: &str) -> anyhow::Result<Session> {
        Session::of(global, &wanted(global, reference)?)
    }

    /// The same for a reference that was followed already.
    pub fn of(global: &Global, wanted: &Wanted) -> anyhow::Result<Session> {
        let deadline = global.deadline();
        let end = Instant::now() + deadline;
        let sources = wanted.open_sources(end)?;
        let runtime = runtime()?;
        let cache = memory_cache(MEMORY).context("the memory cache")?;
        let image = runtime.block_on(Image::open(wanted.id, &cache, &sources, None, end))?;
        Ok(Session { fs: Filesystem::new(image.into(), cache, sources, deadline), runtime })
    }

    /// The inode at `path`; names the path when there is none.
    pub fn find(&self, path: &std::path::Path, last: Last) -> anyhow::Result<Inode> {
        use std::os::unix::ffi::OsStrExt;
        paths::resolve(&self.fs, path.as_os_str().as_bytes(), last)
            .with_context(|| format!("{} in the flist", path.display()))
    }

    /// Calls `take` with the contents of a file, piece by piece.
    pub fn contents(
        &self,
        inode: &Inode,
        mut take: impl FnMut(u64, &[u8]) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        const STEP: u32 = 1 << 20;
        let mut at = 0;
        while at < inode.size {
            let contents = self.runtime.block_on(self.fs.read(inode.nid, at, STEP))?;
            take(at, contents.as_ref())?;
            at += contents.as_ref().len() as u64;
        }
        Ok(())
    }
}

/// An flist that the user named, and whom to ask for it.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The flist.
    pub id: BlockId,
    /// The sources of `--from`, then those that the reference hints at.
    pub sources: Vec<Spec>,
    /// The profile that the reference names.
    pub profile: Option<BlockId>,
}

impl Wanted {
    /// Opens its sources, which must be done by `end`.
    pub fn open_sources(&self, end: Instant) -> Result<Sources, SpecError> {
        let options = SourceOptions { open_by: Some(end), ..SourceOptions::default() };
        open_sources_of(self.id, &self.sources, options)
    }
}

/// Follows `reference`. Where a name leads is said, since it may lead elsewhere tomorrow.
pub fn wanted(global: &Global, reference: &str) -> anyhow::Result<Wanted> {
    let reference: Reference = reference.parse()?;
    let mut sources = defaults::sources(global)?;
    let nodes = network::nodes(&sources)?;
    let resolved = match &reference.target {
        Target::Name(name) => network::lead(global, name, &reference.hints, &nodes)?,
        Target::Cid(_) | Target::Tag(_) => resolve(&reference, Names::of_user().as_ref())?,
    };
    if let Some(name) = &resolved.name {
        output::info(global, format_args!("{name} is {}", resolved.id));
    }
    for hint in resolved.hints.gateways(global.reach())? {
        if sources.len() >= MAX_SOURCES {
            tracing::warn!(%hint, "the hint is not asked: there are {MAX_SOURCES} sources already");
        } else if !sources.contains(&hint) {
            sources.push(hint);
        }
    }
    network::meet(&nodes, resolved.hints.peers(global.reach())?)?;
    Ok(Wanted { id: resolved.id, sources, profile: resolved.hints.profile() })
}

/// The threads that fetch and decode. A source that hangs in a system call does not keep the program alive.
pub struct Fetchers(Option<Runtime>);

impl std::ops::Deref for Fetchers {
    type Target = Runtime;

    fn deref(&self) -> &Runtime {
        self.0.as_ref().expect("it is taken only by drop")
    }
}

impl Drop for Fetchers {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// Starts the threads that fetch and decode.
pub fn runtime() -> anyhow::Result<Fetchers> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    Ok(Fetchers(Some(runtime.context("starting the fetch threads")?)))
}
