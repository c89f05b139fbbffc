//! Why nothing was done to a file.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Why nothing was done to a file.
#[derive(Debug, thiserror::Error)]
pub enum FilesystemError {
    /// The system refuses.
    #[error("cannot {0} {1}")]
    Io(&'static str, PathBuf, #[source] io::Error),
    /// Some of a tree could not be changed; the first of them.
    #[error("cannot {what} {path}, and {others} more below {root}: everything else is done")]
    Partly {
        /// What was to be done.
        what: &'static str,
        /// The first that failed.
        path: PathBuf,
        /// How many more failed.
        others: u64,
        /// Where it began.
        root: PathBuf,
        /// Why the first one failed.
        #[source]
        source: io::Error,
    },
    /// Not open, or not any more.
    #[error("no open file {0:?}: it was closed, or not used for {1:?}")]
    NotOpen(String, Duration),
    /// Too many.
    #[error("{0} files are open, and no more are held: close some")]
    TooManyOpen(usize),
    /// Only what has bytes can be read and written.
    #[error("{0} is {1}: only files and devices can be opened")]
    NoFile(PathBuf, &'static str),
    /// A folder with more entries than an answer holds.
    #[error("{0} has more than {1} entries")]
    TooManyEntries(PathBuf, usize),
    /// Never.
    #[error("{0} is the root of the node, which stays")]
    Root(PathBuf),
    /// Removing would go on in another file system.
    #[error("{mountpoint} is mounted at or below {path}: unmount it first")]
    Mounted {
        /// What was to be removed.
        path: PathBuf,
        /// What is in the way.
        mountpoint: PathBuf,
    },
    /// Nobody has this name.
    #[error("no {0} {1:?} on this node")]
    NoName(&'static str, String),
}

impl FilesystemError {
    /// For `map_err`.
    pub fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |e| FilesystemError::Io(what, path, e)
    }
}
