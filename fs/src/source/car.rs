//! `car:FILE`: a CARv1 archive on this machine, read in place.
//!
//! Opening reads the whole file once and proves every block ([`crate::car::Index`]), which takes about a second a
//! gigabyte and 48 bytes of memory a block; mounts of one process share that. From then on a block is one pread of the
//! file that was opened, also when another one gets its name. Who writes into the file meanwhile changes no byte that
//! anybody reads: what comes from here is proven again as from any source, and a file that has become shorter is an error.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Instant;

use async_trait::async_trait;
use bytes::Bytes;
use g8_cache::{BlockId, FetchError, Origin, StoredBlock};
use parking_lot::Mutex;

use crate::car::{Index, Limits, OpenError};

/// Damaged blocks that are told of one by one.
const TOLD: usize = 5;

/// Why an archive is no source.
#[derive(Debug, thiserror::Error)]
pub enum CarError {
    /// It is not there.
    #[error("there is no file {0}: name a CAR with --from car:FILE")]
    Missing(PathBuf),
    /// The path is something else.
    #[error("{0} is not a file: a CAR is read in place, so it cannot be a folder or a pipe")]
    NotAFile(PathBuf),
    /// It is not an archive, or a damaged one.
    #[error("CAR {0} cannot be used")]
    Open(PathBuf, #[source] OpenError),
    /// Somebody wrote into it while it was read.
    #[error("CAR {0} changed while it was read: mount it when it is complete")]
    Changed(PathBuf),
    /// The system refused.
    #[error("opening CAR {0}")]
    Io(PathBuf, #[source] io::Error),
}

/// An archive that was read and proven.
#[derive(Debug)]
pub struct Car {
    path: PathBuf,
    file: File,
    index: Index,
    identity: Identity,
}

/// What changes when a file does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    len: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Identity {
    fn of(file: &File) -> io::Result<Identity> {
        let meta = file.metadata()?;
        Ok(Identity {
            device: meta.dev(),
            inode: meta.ino(),
            len: meta.len(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        })
    }
}

/// The archives that are open in this process, so that many mounts of one cost one reading. It is of the process because the
/// files are: nothing of it outlives the last source that uses it.
static OPENED: Mutex<Vec<Weak<Car>>> = Mutex::new(Vec::new());

impl Car {
    /// Opens the archive, which must be done by `until`.
    pub fn open(path: &Path, until: Option<Instant>) -> Result<Arc<Car>, CarError> {
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::NotFound => CarError::Missing(path.to_owned()),
            _ => CarError::Io(path.to_owned(), source),
        };
        // Not blocking, so that a pipe holds nobody up.
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(failed)?;
        if !file.metadata().map_err(failed)?.is_file() {
            return Err(CarError::NotAFile(path.to_owned()));
        }
        let identity = Identity::of(&file).map_err(failed)?;
        let shared = OPENED.lock().iter().filter_map(Weak::upgrade).find(|car| car.identity == identity);
        if let Some(car) = shared {
            return Ok(car);
        }
        // It only makes reading faster, and some file systems do not know it.
        let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::Sequential);
        let index = Index::read(&file, Limits { until, ..Limits::default() });
        let index = index.map_err(|error| CarError::Open(path.to_owned(), error))?;
        if Identity::of(&file).map_err(failed)? != identity {
            return Err(CarError::Changed(path.to_owned()));
        }
        let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::Random);
        let car = Arc::new(Car { path: path.to_owned(), file, index, identity });
        car.warn_of_damage();
        let mut opened = OPENED.lock();
        opened.retain(|car| car.strong_count() > 0);
        opened.push(Arc::downgrade(&car));
        Ok(car)
    }

    fn warn_of_damage(&self) {
        let (car, index) = (self.path.display(), &self.index);
        for (id, offset) in index.damaged().into_iter().take(TOLD) {
            tracing::warn!(%car, %id, offset, "a block of the CAR has wrong bytes and is left out");
        }
        let untold = index.damaged_count().saturating_sub(TOLD as u64);
        if untold > 0 {
            tracing::warn!(%car, blocks = untold, "and more blocks with wrong bytes");
        }
        if index.foreign() > 0 {
            tracing::debug!(%car, blocks = index.foreign(), "blocks that no flist has are left out");
        }
    }

    /// What is in it.
    pub fn index(&self) -> &Index {
        &self.index
    }

    fn read(&self, id: &BlockId, range: Option<Range<u64>>) -> Result<Bytes, FetchError> {
        let Some((offset, len)) = self.index.find(id) else {
            return Err(match self.index.find_damaged(id) {
                Some(offset) => FetchError::unavailable(format!(
                    "its block at offset {offset} has wrong bytes: copy the CAR again"
                )),
                None => FetchError::NotFound,
            });
        };
        let range = range.unwrap_or(0..len as u64);
        if range.start > range.end || range.end > len as u64 {
            return Err(FetchError::NotFound);
        }
        let mut bytes = vec![0; (range.end - range.start) as usize];
        self.file.read_exact_at(&mut bytes, offset + range.start).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => FetchError::unavailable("the CAR was cut since it was opened"),
            _ => FetchError::unavailable(error),
        })?;
        Ok(bytes.into())
    }
}

/// An archive as one of the sources of a mount.
#[derive(Debug)]
pub(super) struct CarSource {
    spec: String,
    car: Arc<Car>,
    keep: bool,
}

impl CarSource {
    pub(super) fn new(spec: String, car: Arc<Car>, keep: bool) -> Self {
        CarSource { spec, car, keep }
    }
}

#[async_trait]
impl Origin for CarSource {
    fn spec(&self) -> &str {
        &self.spec
    }

    fn keep(&self) -> bool {
        self.keep
    }

    async fn fetch(&self, id: &BlockId) -> Result<StoredBlock, FetchError> {
        let (car, id) = (self.car.clone(), *id);
        let read = move || Ok(StoredBlock::new(id, car.read(&id, None)?)?);
        tokio::task::spawn_blocking(read).await.map_err(FetchError::unavailable)?
    }

    fn reads_ranges(&self) -> bool {
        true
    }

    async fn read_range(&self, id: &BlockId, range: Range<u64>) -> Result<Bytes, FetchError> {
        let (car, id) = (self.car.clone(), *id);
        let read = move || car.read(&id, Some(range));
        tokio::task::spawn_blocking(read).await.map_err(FetchError::unavailable)?
    }
}
