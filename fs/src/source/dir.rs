//! `dir:PATH`, the embedded store: one file per object, named by its CID.
//!
//! An object lies in a folder named by the two characters before the last of its CID, as in IPFS's flatfs, so that
//! no folder grows past a few thousand entries. It is written to a temporary name, synced and renamed: a reader or a
//! crash sees a whole object or none. Syncing is done for many objects at once, by syncfs(2): one journal commit
//! instead of one per object, which made a pack ten times slower. Names that begin with a dot are not objects. What is
//! read is never trusted: the cache proves every object against its name.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use g8_cache::{BlockId, FetchError, MAX_STORED, Origin, StoredBlock};
use parking_lot::Mutex;

/// Why a store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The folder is not there.
    #[error(
        "there is no store in {0}: pack something into it with `flist pack DIR --to dir:{0}`, or name another with --from"
    )]
    Missing(PathBuf),
    /// The path is something else.
    #[error("{0} is not a folder")]
    NotAFolder(PathBuf),
    /// We may not read it.
    #[error("store {0} may not be read (permission denied): ask its owner, or name another with --from")]
    Unreadable(PathBuf),
    /// We may not write to it.
    #[error("store {0} may not be written (permission denied): ask its owner, or name another with --to")]
    Unwritable(PathBuf),
    /// The system refused.
    #[error("store {path}: {action}")]
    Io {
        /// Where.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl StoreError {
    fn io(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> StoreError {
        move |source| StoreError::Io { path: path.to_owned(), action, source }
    }
}

/// What [`DirStore::put`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// The object is new in the store.
    New,
    /// It was there and its bytes are right.
    Present,
    /// It was there with wrong bytes and has been replaced.
    Repaired,
}

/// Objects and bytes that may wait for the next sync.
const MAX_PENDING: usize = 1024;
const MAX_PENDING_BYTES: usize = 256 << 20;

/// A folder of objects.
#[derive(Debug)]
pub struct DirStore {
    root: PathBuf,
    /// Where objects are written before they have a name; only in a store that was opened for writing.
    writing: Option<Writing>,
    pending: Mutex<Pending>,
}

/// A folder of temporary files that belongs to one writer for as long as it holds the lock on it.
#[derive(Debug)]
struct Writing {
    folder: PathBuf,
    next: AtomicU64,
    _lock: File,
}

/// Written objects that do not have their names yet.
#[derive(Debug, Default)]
struct Pending {
    renames: Vec<(PathBuf, PathBuf)>,
    bytes: usize,
}

impl DirStore {
    /// The store in `root`, for reading. It may be away now and come back later.
    pub fn new(root: &Path) -> Self {
        DirStore { root: root.to_owned(), writing: None, pending: Mutex::default() }
    }

    /// Whether there is a store that can be read.
    pub fn probe(&self) -> Result<(), StoreError> {
        let root = &self.root;
        match fs::read_dir(root) {
            Ok(_) => Ok(()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Err(StoreError::Missing(root.clone())),
            Err(e) if e.kind() == io::ErrorKind::NotADirectory => Err(StoreError::NotAFolder(root.clone())),
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                Err(StoreError::Unreadable(root.clone()))
            }
            Err(e) => Err(StoreError::io(root, "opening it")(e)),
        }
    }

    /// Opens a store for writing, creating it when it is missing.
    pub fn create(root: &Path) -> Result<Self, StoreError> {
        let refused = |action| {
            move |e: io::Error| match e.kind() {
                io::ErrorKind::PermissionDenied => StoreError::Unwritable(root.to_owned()),
                _ => StoreError::io(root, action)(e),
            }
        };
        fs::create_dir_all(root).map_err(refused("creating it"))?;
        let mut store = Self::new(root);
        store.probe()?;
        sweep(root).map_err(refused("removing what an interrupted run left"))?;
        store.writing = Some(Writing::start(root).map_err(refused("writing to it"))?);
        Ok(store)
    }

    /// Its folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where the object `id` is or would be.
    pub fn path(&self, id: &BlockId) -> PathBuf {
        let name = id.to_string();
        self.root.join(&name[name.len() - 3..name.len() - 1]).join(name)
    }

    /// The bytes under the name of `id`, unproven; `None` when there are none. Refuses more than [`MAX_STORED`].
    pub fn get(&self, id: &BlockId) -> io::Result<Option<Vec<u8>>> {
        match self.open(id) {
            Ok(file) => read_bounded(file).map(Some),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// The bytes `range` under the name of `id`, unproven and no more than [`MAX_STORED`].
    pub fn read_range(&self, id: &BlockId, range: Range<u64>) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; range.end.saturating_sub(range.start).min(MAX_STORED as u64) as usize];
        self.open(id)?.read_exact_at(&mut bytes, range.start)?;
        Ok(bytes)
    }

    fn open(&self, id: &BlockId) -> io::Result<File> {
        // Not blocking, so that a pipe under the name of an object holds nobody up.
        OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(self.path(id))
    }

    /// Stores an object unless it is there already. `bytes` are those `id` names. It is there for others, and durable,
    /// after the next [`DirStore::sync`].
    pub fn put(&self, id: &BlockId, bytes: &[u8]) -> Result<Put, StoreError> {
        let path = self.path(id);
        let state = match self.get(id) {
            Ok(Some(there)) if there == bytes => return Ok(Put::Present),
            Ok(None) => Put::New,
            // Too long, unreadable or different: whatever it is, it is not this object.
            Ok(Some(_)) | Err(_) => Put::Repaired,
        };
        let full = {
            let temporary = self.write(bytes).map_err(StoreError::io(&path, "writing an object"))?;
            let mut pending = self.pending.lock();
            pending.renames.push((temporary, path));
            pending.bytes += bytes.len();
            pending.renames.len() >= MAX_PENDING || pending.bytes >= MAX_PENDING_BYTES
        };
        if full {
            self.sync()?;
        }
        Ok(state)
    }

    /// Makes every object put so far durable, then gives it its name, in the order of the puts and durably too.
    ///
    /// Journaling file systems keep that order over a crash. On others one may leave an object without those put before
    /// it, whose address nobody was told yet; the next run puts what is missing.
    pub fn sync(&self) -> Result<(), StoreError> {
        let pending = std::mem::take(&mut *self.pending.lock());
        let sync = || -> io::Result<()> {
            let root = File::open(&self.root)?;
            rustix::fs::syncfs(&root)?;
            for (temporary, path) in &pending.renames {
                match fs::rename(temporary, path) {
                    Err(e) if e.kind() == io::ErrorKind::NotFound => {
                        fs::create_dir_all(path.parent().expect("an object lies in a folder"))?;
                        fs::rename(temporary, path)?;
                    }
                    other => other?,
                }
            }
            Ok(rustix::fs::syncfs(&root)?)
        };
        sync().map_err(StoreError::io(&self.root, "syncing it"))
    }

    fn write(&self, bytes: &[u8]) -> io::Result<PathBuf> {
        let writing = self.writing.as_ref().ok_or(io::ErrorKind::ReadOnlyFilesystem)?;
        let temporary = writing.folder.join(writing.next.fetch_add(1, Ordering::Relaxed).to_string());
        let mut file = OpenOptions::new().write(true).create_new(true).open(&temporary)?;
        match file.write_all(bytes) {
            Ok(()) => Ok(temporary),
            Err(e) => {
                // The first error is the one to tell; a leftover goes with its folder.
                let _ = fs::remove_file(&temporary);
                Err(e)
            }
        }
    }
}

/// Begins the name of a folder of temporary files.
const WRITING: &str = ".writing-";

impl Writing {
    fn start(root: &Path) -> io::Result<Writing> {
        loop {
            let folder = tempfile::Builder::new().prefix(WRITING).tempdir_in(root)?.keep();
            let lock = File::open(&folder)?;
            lock.lock()?;
            // Somebody who sweeps may have seen the folder before it was locked.
            if fs::metadata(&folder).is_ok_and(|m| lock.metadata().is_ok_and(|l| l.ino() == m.ino())) {
                return Ok(Writing { folder, next: AtomicU64::new(0), _lock: lock });
            }
        }
    }
}

/// Removes the temporary folders of writers that are gone: those that nobody has locked.
fn sweep(root: &Path) -> io::Result<()> {
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        if !entry.file_name().as_encoded_bytes().starts_with(WRITING.as_bytes()) {
            continue;
        }
        let abandoned = File::open(entry.path()).and_then(|folder| match folder.try_lock() {
            Ok(()) => fs::remove_dir_all(entry.path()),
            Err(TryLockError::WouldBlock) => Ok(()),
            Err(TryLockError::Error(e)) => Err(e),
        });
        match abandoned {
            // Somebody was faster, or it is another user's to remove.
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) => {}
            other => other?,
        }
    }
    Ok(())
}

fn read_bounded(file: File) -> io::Result<Vec<u8>> {
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "what has the object's name is not a file"));
    }
    let mut bytes = Vec::with_capacity((meta.len() as usize).min(MAX_STORED) + 1);
    file.take(MAX_STORED as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > MAX_STORED {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the object is larger than any block"));
    }
    Ok(bytes)
}

impl Drop for Writing {
    /// What never got its name is of no use to anybody.
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.folder) {
            // It is swept when the store is next written to.
            tracing::debug!(folder = %self.folder.display(), %error, "temporary files stay");
        }
    }
}

/// A store as one of the sources of a mount.
#[derive(Debug)]
pub(super) struct DirSource {
    spec: String,
    store: std::sync::Arc<DirStore>,
    keep: bool,
}

impl DirSource {
    pub(super) fn new(spec: String, store: DirStore, keep: bool) -> Self {
        DirSource { spec, store: std::sync::Arc::new(store), keep }
    }
}

#[async_trait]
impl Origin for DirSource {
    fn spec(&self) -> &str {
        &self.spec
    }

    fn keep(&self) -> bool {
        self.keep
    }

    async fn fetch(&self, id: &BlockId) -> Result<StoredBlock, FetchError> {
        let (store, id) = (self.store.clone(), *id);
        let read = move || match store.get(&id) {
            Ok(Some(bytes)) => Ok(StoredBlock::new(id, Bytes::from(bytes))?),
            // A store that is not there may come back, and has not said that it lacks the object.
            Ok(None) => Err(store.probe().map_or_else(FetchError::unavailable, |()| FetchError::NotFound)),
            Err(e) => Err(store.probe().map_or_else(FetchError::unavailable, |()| FetchError::from(e))),
        };
        tokio::task::spawn_blocking(read).await.map_err(FetchError::unavailable)?
    }

    fn reads_ranges(&self) -> bool {
        true
    }

    async fn read_range(&self, id: &BlockId, range: Range<u64>) -> Result<Bytes, FetchError> {
        let (store, id) = (self.store.clone(), *id);
        let read = move || store.read_range(&id, range);
        let bytes = tokio::task::spawn_blocking(read).await.map_err(FetchError::unavailable)??;
        Ok(bytes.into())
    }
}

#[cfg(test)]
mod tests {
    use g8_cache::Codec;

    use super::*;

    #[test]
    fn objects_are_kept_once_and_repaired() {
        let dir = tempfile::tempdir().unwrap();
        let store = DirStore::create(&dir.path().join("s")).unwrap();
        let id = BlockId::of(Codec::Raw, b"hello");
        assert_eq!(store.get(&id).unwrap(), None);
        assert_eq!(store.put(&id, b"hello").unwrap(), Put::New);
        assert_eq!(store.get(&id).unwrap(), None, "it has no name before it is durable");
        store.sync().unwrap();
        assert_eq!(store.put(&id, b"hello").unwrap(), Put::Present);
        fs::write(store.path(&id), b"hellx").unwrap();
        assert_eq!(store.put(&id, b"hello").unwrap(), Put::Repaired);
        store.sync().unwrap();
        assert_eq!(store.get(&id).unwrap().unwrap(), b"hello");
    }

    #[test]
    fn a_range_of_an_object_is_read_alone() {
        let dir = tempfile::tempdir().unwrap();
        let store = DirStore::create(dir.path()).unwrap();
        let id = BlockId::of(Codec::Raw, b"hello");
        store.put(&id, b"hello").unwrap();
        store.sync().unwrap();
        assert_eq!(store.read_range(&id, 1..4).unwrap(), b"ell");
        assert_eq!(store.read_range(&id, 5..5).unwrap(), b"");
        store.read_range(&id, 3..6).unwrap_err();
        store.read_range(&BlockId::of(Codec::Raw, b""), 0..1).unwrap_err();
    }

    #[test]
    fn leftovers_of_dead_writers_go_and_those_of_live_ones_stay() {
        let dir = tempfile::tempdir().unwrap();
        let dead = dir.path().join(".writing-dead");
        fs::create_dir(&dead).unwrap();
        fs::write(dead.join("0"), b"x").unwrap();
        let live = DirStore::create(dir.path()).unwrap();
        let id = BlockId::of(Codec::Raw, b"live");
        live.put(&id, b"live").unwrap();
        drop(DirStore::create(dir.path()).unwrap());
        assert!(!dead.exists());
        live.sync().unwrap();
        assert_eq!(live.get(&id).unwrap().unwrap(), b"live");
        drop(live);
        let hidden = fs::read_dir(dir.path())
            .unwrap()
            .filter(|e| e.as_ref().unwrap().file_name().as_encoded_bytes().starts_with(b"."));
        assert_eq!(hidden.count(), 0);
    }

    #[test]
    fn a_pipe_in_place_of_an_object_is_an_error_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let store = DirStore::create(dir.path()).unwrap();
        let id = BlockId::of(Codec::Raw, b"");
        let path = store.path(&id);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let kind = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, &path, kind, rustix::fs::Mode::RUSR, 0).unwrap();
        store.get(&id).unwrap_err();
    }

    #[test]
    fn an_endless_object_is_not_read_to_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let store = DirStore::create(dir.path()).unwrap();
        let id = BlockId::of(Codec::Raw, b"");
        let path = store.path(&id);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        File::create(&path).unwrap().set_len(1 << 40).unwrap();
        store.get(&id).unwrap_err();
    }
}
