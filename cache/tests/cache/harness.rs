//! Blocks to read, origins that give them or fail to, and caches on temporary directories.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use bytes::Bytes;
use g8_cache::{
    BlockId, Cache, CacheConfig, EncodeOptions, EncodedBlock, Encoder, FetchError, Origin, Source, Sources,
    StoredBlock,
};

pub const MIB: u64 = 1 << 20;

pub fn random(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.flatten().take(len).collect()
}

/// Half random, half compressible.
pub fn plain(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = random(seed, len / 2);
    bytes.extend((0..len - len / 2).map(|i| (i as u64 / 7 + seed) as u8));
    bytes
}

pub struct Block {
    pub plain: Vec<u8>,
    pub encoded: EncodedBlock,
}

impl Block {
    pub fn of(plain: Vec<u8>, frame_len: u32) -> Block {
        let mut encoder = Encoder::new(EncodeOptions { level: 1, frame_len }).unwrap();
        let encoded = encoder.encode(&plain).unwrap();
        Block { plain, encoded }
    }

    pub fn frame(&self, index: usize) -> &[u8] {
        self.plain.chunks(self.encoded.frame_len as usize).nth(index).unwrap()
    }

    pub fn frames(&self) -> usize {
        self.encoded.frames.len()
    }
}

/// `count` blocks of `len` plain bytes in frames of 64 KiB.
pub fn blocks(count: usize, len: usize) -> Vec<Block> {
    (0..count).map(|seed| Block::of(plain(seed as u64 + 1, len), 65_536)).collect()
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    Fail,
    Busy,
    Unfit,
    Vanish,
    Lie,
    Truncate,
    Oversize,
    OtherBlock,
    Stall,
    Panic,
}

pub const FAULTS: [Fault; 10] = [
    Fault::Fail,
    Fault::Busy,
    Fault::Unfit,
    Fault::Vanish,
    Fault::Lie,
    Fault::Truncate,
    Fault::Oversize,
    Fault::OtherBlock,
    Fault::Stall,
    Fault::Panic,
];

/// Gives blocks from memory, except for the calls that are to go wrong.
pub struct TestOrigin {
    pub spec: String,
    pub keep: bool,
    pub remote: bool,
    pub delay: Duration,
    pub calls: AtomicUsize,
    held: HashMap<BlockId, Bytes>,
    wrong: Box<dyn Fn(usize) -> Option<Fault> + Send + Sync>,
}

impl TestOrigin {
    pub fn good(blocks: &[Block]) -> TestOrigin {
        TestOrigin::faulty(blocks, |_| None)
    }

    pub fn faulty(
        blocks: &[Block],
        wrong: impl Fn(usize) -> Option<Fault> + Send + Sync + 'static,
    ) -> TestOrigin {
        TestOrigin {
            spec: "test:".into(),
            keep: true,
            remote: false,
            delay: Duration::ZERO,
            calls: AtomicUsize::new(0),
            held: blocks.iter().map(|b| (b.encoded.id, b.encoded.stored.clone())).collect(),
            wrong: Box::new(wrong),
        }
    }

    pub fn calls(&self) -> usize {
        self.calls.load(SeqCst)
    }

    pub fn held(&self, id: &BlockId) -> Result<Bytes, FetchError> {
        self.held.get(id).cloned().ok_or(FetchError::NotFound)
    }
}

#[async_trait::async_trait]
impl Origin for TestOrigin {
    fn spec(&self) -> &str {
        &self.spec
    }

    async fn fetch(&self, id: &BlockId) -> Result<StoredBlock, FetchError> {
        let call = self.calls.fetch_add(1, SeqCst);
        tokio::time::sleep(self.delay).await;
        let right = self.held(id)?;
        let bytes = match (self.wrong)(call) {
            None => right,
            Some(Fault::Fail) => return Err(FetchError::unavailable("connection reset")),
            Some(Fault::Busy) => return Err(FetchError::Busy(Duration::ZERO)),
            Some(Fault::Unfit) => return Err(FetchError::unfit("answers with HTML")),
            Some(Fault::Vanish) => return Err(FetchError::NotFound),
            Some(Fault::Lie) => right.iter().map(|byte| byte ^ 1).collect(),
            Some(Fault::Truncate) => right.slice(..right.len() - 1),
            Some(Fault::Oversize) => vec![0; g8_cache::MAX_STORED + 1].into(),
            Some(Fault::OtherBlock) => {
                let other = BlockId::of(id.codec(), b"other");
                return Ok(StoredBlock::new(other, &b"other"[..])?);
            }
            Some(Fault::Stall) => std::future::pending().await,
            Some(Fault::Panic) => panic!("the origin is broken, as the test asks"),
        };
        Ok(StoredBlock::new(*id, bytes)?)
    }

    fn keep(&self) -> bool {
        self.keep
    }

    fn is_remote(&self) -> bool {
        self.remote
    }
}

pub fn sources<const N: usize>(origins: [&Arc<TestOrigin>; N]) -> Sources {
    Sources::new(origins.map(|origin| {
        let origin: Arc<dyn Origin> = Arc::clone(origin) as _;
        Arc::new(Source::new(origin))
    }))
}

pub fn config(dir: Option<&Path>, disk_budget: u64, memory_budget: u64) -> CacheConfig {
    CacheConfig { dir: dir.map(Path::to_owned), disk_budget, free_floor: 0, memory_budget }
}

pub fn memory_only(budget: u64) -> Cache {
    Cache::open(config(None, 0, budget)).unwrap()
}

/// A cache whose memory tier keeps nothing, so that every hit is of the disk.
pub fn disk_only(dir: &Path, budget: u64) -> Cache {
    Cache::open(config(Some(dir), budget, 0)).unwrap()
}

pub fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

/// Reads every frame through the sources and compares it.
pub async fn read_all(cache: &Cache, blocks: &[Block], sources: &Sources) {
    for block in blocks {
        for index in 0..block.frames() {
            let (frame, _) = cache.get(&block.encoded.desc(), index, sources, soon()).await.unwrap();
            assert!(&frame[..] == block.frame(index), "wrong bytes");
        }
    }
}

/// Frames that are here without a source; a wrong byte is a panic.
pub fn frames_here(cache: &Cache, blocks: &[Block]) -> usize {
    let mut here = 0;
    for block in blocks {
        for index in 0..block.frames() {
            if let Some((frame, _)) = cache.get_now(&block.encoded.desc(), index) {
                assert!(&frame[..] == block.frame(index), "wrong bytes");
                here += 1;
            }
        }
    }
    here
}

/// Waits for a condition that another thread brings about.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < end, "never came: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Bytes of all files below `dir`, as allocated; files that vanish meanwhile are left out.
pub fn disk_use(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => disk_use(&entry.path()),
            Ok(meta) => meta.blocks() * 512,
            Err(_) => 0,
        })
        .sum()
}

/// Copies a directory as it is now: what a power cut would leave.
pub fn crash_image(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.metadata().unwrap().is_dir() {
            crash_image(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
