//! What a disk hit of one frame costs, and where: `cargo bench -p g8-cache --bench disk_hit`.
//!
//! 512 MiB in blocks of four frames, read in random order while the files of the database are in the page cache; once this
//! machine's programs and headers, once what does not compress. The memory tier keeps nothing.

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{Criterion, criterion_group, criterion_main};
use g8_cache::{
    BlockId, Cache, CacheConfig, EncodeOptions, EncodedBlock, Encoder, FetchError, MAX_STORED, Origin,
    Source, Sources, StoredBlock, VerifiedBlock,
};

const PLAIN_BYTES: usize = 512 << 20;

/// Gives the blocks from memory.
struct Blocks(Vec<EncodedBlock>);

#[async_trait::async_trait]
impl Origin for Blocks {
    fn spec(&self) -> &str {
        "blocks:"
    }

    async fn fetch(&self, id: &BlockId) -> Result<StoredBlock, FetchError> {
        let block = self.0.iter().find(|block| block.id == *id).ok_or(FetchError::NotFound)?;
        Ok(StoredBlock::new(*id, block.stored.clone())?)
    }

    fn keep(&self) -> bool {
        true
    }
}

/// The files of this machine, sorted, one after the other.
fn programs() -> Vec<u8> {
    let mut plain = Vec::with_capacity(PLAIN_BYTES);
    let mut todo = ["/usr/lib", "/usr/include", "/usr/bin"].map(PathBuf::from).to_vec();
    while let Some(path) = todo.pop() {
        let Ok(meta) = path.symlink_metadata() else { continue };
        if meta.is_dir() {
            let Ok(entries) = std::fs::read_dir(&path) else { continue };
            let mut entries: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
            entries.sort();
            todo.extend(entries.into_iter().rev());
        } else if meta.is_file() {
            plain.extend(std::fs::read(&path).unwrap_or_default());
        }
        if plain.len() >= PLAIN_BYTES {
            break;
        }
    }
    plain.truncate(PLAIN_BYTES);
    plain
}

fn noise() -> Vec<u8> {
    let mut word = random(usize::MAX);
    std::iter::repeat_with(|| word().to_le_bytes()).flatten().take(PLAIN_BYTES).collect()
}

fn encoded(plain: &[u8]) -> Vec<EncodedBlock> {
    let mut encoder = Encoder::new(EncodeOptions::default()).unwrap();
    let mut blocks: Vec<_> = plain.chunks(MAX_STORED).map(|plain| encoder.encode(plain).unwrap()).collect();
    blocks.sort_by_key(|block| block.id);
    blocks.dedup_by_key(|block| block.id);
    blocks
}

/// A cache on `dir` whose memory tier keeps nothing.
fn open(dir: &Path) -> Cache {
    let dir = Some(dir.to_owned());
    Cache::open(CacheConfig { dir, disk_budget: 4 << 30, free_floor: 0, memory_budget: 0 }).unwrap()
}

fn fill(dir: &Path, blocks: &Arc<Blocks>) {
    let cache = open(dir);
    let sources = Sources::new([Arc::new(Source::new(Arc::clone(blocks) as Arc<dyn Origin>))]);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let deadline = Instant::now() + Duration::from_secs(600);
    for (number, block) in blocks.0.iter().enumerate() {
        runtime.block_on(cache.get(&block.desc(), 0, &sources, deadline)).unwrap();
        // A put that would wait for the disk is skipped.
        if number % 16 == 0 {
            cache.flush();
        }
    }
    cache.flush();
    assert_eq!(cache.stats().disk.skipped, 0);
}

/// Numbers below `end` in an order without pattern.
fn random(end: usize) -> impl FnMut() -> usize {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as usize % end
    }
}

fn disk_hit(criterion: &mut Criterion) {
    measure(criterion, "programs", &programs());
    measure(criterion, "noise", &noise());
}

fn measure(criterion: &mut Criterion, name: &str, plain: &[u8]) {
    let tmp = tempfile::tempdir().unwrap();
    let blocks = Arc::new(Blocks(encoded(plain)));
    let all = &blocks.0;
    let frames: Vec<(usize, usize)> = all
        .iter()
        .enumerate()
        .flat_map(|(at, block)| (0..block.frames.len()).map(move |frame| (at, frame)))
        .collect();
    let stored: usize = all.iter().map(|block| block.stored.len()).sum();
    println!("{name}: {} blocks, {} frames, {} MiB stored", all.len(), frames.len(), stored >> 20);
    fill(tmp.path(), &blocks);

    let mut group = criterion.benchmark_group(format!("disk_hit/{name}"));
    let mut next = random(frames.len());
    let cache = open(tmp.path());
    group.bench_function("whole", |bencher| {
        bencher.iter(|| {
            let (block, frame) = frames[next()];
            cache.get_now(&all[block].desc(), frame).expect("everything is on the disk")
        });
    });
    drop(cache);

    let mut options = rocksdb::Options::default();
    options.set_disable_auto_compactions(true);
    let db = rocksdb::DB::open_cf_with_opts(&options, tmp.path().join("db"), [("blocks", options.clone())])
        .unwrap();
    let family = db.cf_handle("blocks").unwrap();
    let keys: Vec<_> =
        db.iterator_cf(family, rocksdb::IteratorMode::Start).map(|entry| entry.unwrap().0).collect();
    let mut reading = rocksdb::ReadOptions::default();
    reading.set_verify_checksums(false);
    reading.fill_cache(false);
    let mut next = random(keys.len());
    group.bench_function("rocksdb", |bencher| {
        bencher.iter(|| {
            let found = db.get_pinned_cf_opt(family, &keys[next()], &reading).unwrap().unwrap();
            black_box(found[found.len() - 1])
        });
    });

    let mut next = random(frames.len());
    group.bench_function("blake3", |bencher| {
        bencher.iter(|| {
            let (block, frame) = frames[next()];
            let span = all[block].desc().frame(frame).unwrap();
            let bytes = &all[block].stored[span.start as usize..][..span.stored_len as usize];
            blake3::keyed_hash(&[7; 32], bytes)
        });
    });

    let verified: Vec<VerifiedBlock> = all
        .iter()
        .map(|block| StoredBlock::new(block.id, Bytes::clone(&block.stored)).unwrap().verify().unwrap())
        .collect();
    let mut next = random(frames.len());
    group.bench_function("decode", |bencher| {
        bencher.iter(|| {
            let (block, frame) = frames[next()];
            verified[block].decode(&all[block].desc(), frame).unwrap()
        });
    });
    group.finish();
}

criterion_group!(benches, disk_hit);
criterion_main!(benches);
