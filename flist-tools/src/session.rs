//! An image opened in this process, for commands that look into it once and mount nothing.

use std::time::{Duration, Instant};

use anyhow::Context;
use g8_cache::BlockId;
use g8_fs::check::memory_cache;
use g8_fs::erofs::Inode;
use g8_fs::filesystem::Filesystem;
use g8_fs::image::Image;
use g8_fs::paths::{self, Last};
use g8_fs::source::{SourceOptions, open_sources};
use tokio::runtime::Runtime;

use crate::cli::Global;
use crate::defaults;

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
    /// Opens the image `reference` from the sources that `global` names.
    pub fn open(global: &Global, reference: &str) -> anyhow::Result<Session> {
        let id = address(reference)?;
        let sources = open_sources(&defaults::sources(global)?, SourceOptions::default())?;
        let runtime = runtime()?;
        let cache = memory_cache(MEMORY).context("the memory cache")?;
        let deadline = global.deadline();
        let open = Image::open(id, &cache, &sources, None, Instant::now() + deadline);
        let image = runtime.block_on(open)?;
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

/// The address in `reference`: a CID, also behind `ipfs://` or `/ipfs/`.
pub fn address(reference: &str) -> anyhow::Result<BlockId> {
    let cid = reference.strip_prefix("ipfs://").or(reference.strip_prefix("/ipfs/")).unwrap_or(reference);
    let wrong = || {
        format!(
            "{reference:?} is not the address of an flist: `flist pack` prints one, beginning with bafyrei"
        )
    };
    cid.parse::<BlockId>().with_context(wrong)
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

/// How long a read may take unless the user says otherwise.
pub const DEADLINE: Duration = Duration::from_secs(60);
