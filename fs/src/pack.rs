//! Packing: a directory tree becomes an flist, in one pass over its bytes.
//!
//! walk -> read (hash, cut) -> lay out (dedup, place, bundle) -> encode (compress, name) -> store -> tree, map, root.
//!
//! Walking fixes the order. Reading and encoding run on worker threads; laying out happens on the calling thread,
//! in tree order, so the result does not depend on how the others are scheduled. Every queue is bounded, so memory
//! does not grow with the tree's contents. Blocks become durable before anything that names them, and the root
//! comes last: an interrupted run leaves whole blocks that the next one finds.

mod encode;
mod finish;
mod layout;
mod options;
mod read;
mod segment;
mod space;
mod walk;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use g8_cache::BlockId;

pub use options::{Filter, OwnerMap, PackOptions};

use crate::source::{DirStore, StoreError};

/// Why a tree could not be packed. Every variant that concerns a file names it.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// The system refused something.
    #[error("{path}: {action}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// An flist has no way to hold this.
    #[error("{path}: {reason}")]
    Unrepresentable {
        /// Which file.
        path: PathBuf,
        /// What cannot be held.
        reason: String,
    },
    /// A file was written, replaced or removed while it was read.
    #[error(
        "{0} changed while it was read: pack a snapshot, stop the writer, or leave such files out with --skip-changed"
    )]
    Changed(PathBuf),
    /// The sink lies in the tree.
    #[error("the store {store} lies inside {tree}: name another with --to, or leave it out with --exclude")]
    StoreInside {
        /// The store.
        store: PathBuf,
        /// The tree.
        tree: PathBuf,
    },
    /// An exclude pattern does not parse.
    #[error("pattern {pattern:?}: {reason}")]
    Pattern {
        /// The pattern as given.
        pattern: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Compression failed.
    #[error("encoding")]
    Encode(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The sink refused a block.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The whole is too large for the format.
    #[error("the tree is too large for an flist: {0}")]
    TooLarge(String),
    /// Somebody asked to stop.
    #[error("interrupted: what is stored so far stays, and the next run continues from it")]
    Cancelled,
}

impl PackError {
    fn io(path: impl Into<PathBuf>, action: &'static str) -> impl FnOnce(std::io::Error) -> PackError {
        let path = path.into();
        move |source| PackError::Io { path, action, source }
    }
}

/// How far a run is, for a progress bar on another thread.
#[derive(Debug, Default)]
pub struct Progress {
    /// Entries found by the walk.
    pub entries: AtomicU64,
    /// Bytes of regular files found by the walk.
    pub bytes_found: AtomicU64,
    /// Bytes of them read.
    pub bytes_read: AtomicU64,
    /// Whether the walk has ended, so that `bytes_found` is the total.
    pub walked: AtomicBool,
}

/// What a run did.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Report {
    /// The address of the flist.
    pub cid: BlockId,
    /// Inodes in the tree.
    pub inodes: u64,
    /// Sum of the sizes of its regular files in bytes, hardlinks once.
    pub content_bytes: u64,
    /// Bytes of them that were in a block of this flist already.
    pub duplicate_bytes: u64,
    /// Data blocks.
    pub blocks: u64,
    /// Their stored size in bytes.
    pub stored_bytes: u64,
    /// Stored size of root, shards, tree and map in bytes.
    pub metadata_bytes: u64,
    /// Bytes of all of that which the store did not have before.
    pub new_bytes: u64,
    /// Files left out because they changed while they were read.
    #[serde(serialize_with = "crate::paths::lossy_list")]
    pub skipped: Vec<PathBuf>,
}

/// Packs the tree below `dir` into `store` and returns its address.
///
/// `cancel` may be set at any time from any thread; the run then ends soon with [`PackError::Cancelled`].
pub fn pack(
    dir: &Path,
    options: &PackOptions,
    store: &DirStore,
    progress: &Progress,
    cancel: &AtomicBool,
) -> Result<Report, PackError> {
    // Without a worker nothing would be read, and every file be empty.
    let options = &PackOptions { threads: options.threads.max(1), ..options.clone() };
    refuse_store_inside(dir, options, store)?;
    let mut tree = walk::walk(dir, options, progress, cancel)?;
    progress.walked.store(true, Ordering::Relaxed);
    let uploads = encode::Uploads::new(store);
    let laid = thread::scope(|scope| {
        let encoders = encode::Encoders::start(scope, options, &uploads);
        let mut layout = layout::Layout::new(options, encoders);
        for event in read::in_order(scope, &tree, options.threads, progress, cancel) {
            let event = event.map_err(|read::Cancelled| PackError::Cancelled)?;
            layout.take(&tree, event, options.skip_changed)?;
        }
        layout.finish()
    });
    if let Err(PackError::Cancelled) = laid {
        // What is encoded is worth keeping: the next run finds it.
        uploads.sync()?;
    }
    finish::finish(&mut tree, laid?, options, &uploads)
}

/// A store in the tree would pack itself, for ever growing.
fn refuse_store_inside(dir: &Path, options: &PackOptions, store: &DirStore) -> Result<(), PackError> {
    let tree = dir.canonicalize().map_err(PackError::io(dir, "opening the tree to pack"))?;
    let Ok(inside) = store.root().canonicalize() else { return Ok(()) };
    let Ok(relative) = inside.strip_prefix(&tree) else { return Ok(()) };
    let excluded = relative.ancestors().any(|path| options.filter.excludes(path));
    if excluded {
        return Ok(());
    }
    Err(PackError::StoreInside { store: store.root().to_owned(), tree })
}

#[cfg(test)]
mod tests;
