//! Trees that are packed into memory, an origin that gives them, and the way from there to bytes of files.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use g8_cache::{BlockId, Cache, FetchError, Origin, Source, Sources, StoredBlock};
use g8_fs::erofs::{Inode, Nid};
use g8_fs::filesystem::{Filesystem, FsError};
use g8_fs::image::{Image, OpenError};
use g8_fs::pack::{PackOptions, Progress, pack};
use g8_fs::source::DirStore;

/// Objects by name. Nothing checks that the bytes are those of the name.
pub type Objects = HashMap<BlockId, Bytes>;

/// Contents by path.
pub type Files = BTreeMap<String, Vec<u8>>;

/// A packed tree.
#[derive(Clone)]
pub struct Packed {
    pub id: BlockId,
    pub objects: Objects,
    pub files: Files,
}

/// Bytes that do not compress.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.flatten().take(len).collect()
}

/// Bytes that compress.
pub fn text(seed: u64, len: usize) -> Vec<u8> {
    let words = (0..).flat_map(|n: u64| format!("{} and {}, ", n * seed % 1000, n % 7).into_bytes());
    words.take(len).collect()
}

/// A little of everything: subdirectories, tiny, small and large files, holes, a doubled file.
pub fn sample() -> Files {
    let mut hollow = vec![0; 600_000];
    hollow[300_000..310_000].copy_from_slice(&noise(6, 10_000));
    let files = [
        ("d/na", noise(1, 5_000)),
        ("d/nb", text(2, 60_000)),
        ("d/sub/deep/q", b"tiny".to_vec()),
        ("d/sub/qq", text(3, 9_000)),
        ("empty", Vec::new()),
        ("hollow", hollow),
        ("large", [text(4, 400_000), noise(4, 900_000)].concat()),
        ("twin/large", [text(4, 400_000), noise(4, 900_000)].concat()),
        ("words", text(5, 200_000)),
    ];
    // So many that the tree has several blocks.
    let tiny = (0..120).map(|n| (format!("tiny/{n:03}"), noise(n, 20)));
    files.into_iter().map(|(path, bytes)| (path.to_owned(), bytes)).chain(tiny).collect()
}

/// A folder in memory where there is one: a pack syncs the whole file system of its store.
pub fn folder() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory).unwrap() } else { tempfile::tempdir().unwrap() }
}

/// Writes `files` to a disk, with holes for the pages of zeros, and packs them.
pub fn pack_files(files: Files, options: &PackOptions) -> Packed {
    let lab = folder();
    let tree = lab.path().join("tree");
    fs::create_dir(&tree).unwrap();
    for (path, bytes) in &files {
        let path = tree.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let file = File::create(path).unwrap();
        file.set_len(bytes.len() as u64).unwrap();
        for (page, at) in bytes.chunks(4096).zip((0..).step_by(4096)) {
            if page.iter().any(|byte| *byte != 0) {
                file.write_all_at(page, at).unwrap();
            }
        }
    }
    let store = DirStore::create(&lab.path().join("store")).unwrap();
    let report = pack(&tree, options, &store, &Progress::default(), &AtomicBool::new(false)).unwrap();
    Packed { id: report.cid, objects: load(store.root()), files }
}

/// Every object of a store.
fn load(folder: &Path) -> Objects {
    let mut objects = Objects::new();
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            objects.extend(load(&entry.path()));
        } else {
            let id = entry.file_name().to_str().unwrap().parse().unwrap();
            objects.insert(id, fs::read(entry.path()).unwrap().into());
        }
    }
    objects
}

/// Gives objects from memory, whatever they are.
pub struct MapOrigin(pub Objects);

#[async_trait]
impl Origin for MapOrigin {
    fn spec(&self) -> &str {
        "map:"
    }

    async fn fetch(&self, id: &BlockId) -> Result<StoredBlock, FetchError> {
        let bytes = self.0.get(id).ok_or(FetchError::NotFound)?;
        Ok(StoredBlock::new(*id, bytes.clone())?)
    }

    fn keep(&self) -> bool {
        true
    }
}

pub fn sources(origins: impl IntoIterator<Item = Arc<dyn Origin>>) -> Sources {
    Sources::new(origins.into_iter().map(|origin| Arc::new(Source::new(origin))))
}

pub fn from_map(objects: &Objects) -> Sources {
    sources([Arc::new(MapOrigin(objects.clone())) as Arc<dyn Origin>])
}

pub fn memory() -> Cache {
    g8_fs::check::memory_cache(64 << 20).unwrap()
}

pub async fn open(
    id: BlockId,
    cache: &Cache,
    sources: &Sources,
    deadline: Duration,
) -> Result<Filesystem, OpenError> {
    let image = Image::open(id, cache, sources, None, Instant::now() + deadline).await?;
    Ok(Filesystem::new(Arc::new(image), cache.clone(), sources.clone(), deadline))
}

/// The inode of a path, which must be there.
pub fn find(fs: &Filesystem, path: &str) -> Inode {
    let mut inode = fs.inode(fs.image().tree.root()).unwrap();
    for name in path.split('/') {
        let entry = fs.lookup(inode.nid, name.as_bytes()).unwrap();
        inode = entry.unwrap_or_else(|| panic!("{path} is not there"));
    }
    inode
}

/// A range as the FUSE edge reads it: at once what is here, else by waiting.
pub async fn read(fs: &Filesystem, nid: Nid, offset: u64, len: u32) -> Result<Vec<u8>, FsError> {
    match fs.read_now(nid, offset, len)? {
        Some(contents) => Ok(contents.as_ref().to_vec()),
        None => Ok(fs.read(nid, offset, len).await?.as_ref().to_vec()),
    }
}

/// The whole of a file, in steps that do not fit any border.
pub async fn read_all(fs: &Filesystem, path: &str) -> Result<Vec<u8>, FsError> {
    const STEP: u32 = 300_001;
    let inode = find(fs, path);
    let mut bytes = Vec::new();
    while (bytes.len() as u64) < inode.size {
        let part = read(fs, inode.nid, bytes.len() as u64, STEP).await?;
        assert!(!part.is_empty(), "{path} ends at {} of {} bytes", bytes.len(), inode.size);
        bytes.extend(part);
    }
    Ok(bytes)
}
