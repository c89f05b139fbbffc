//! What a memory hit costs, alone and in a crowd: `cargo bench -p g8-cache --bench memory_hit`.
//!
//! Time of one hit on one thread while so many threads hit: each another frame at random, or all the same one.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use g8_cache::{
    BlockId, Cache, CacheConfig, EncodeOptions, EncodedBlock, Encoder, FetchError, Origin, Source, Sources,
    StoredBlock,
};

const BLOCKS: usize = 256;
const FRAMES: usize = 4;

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
        false
    }
}

/// A cache with all frames of the blocks in memory.
fn filled() -> (Cache, Arc<Blocks>) {
    let mut encoder = Encoder::new(EncodeOptions { level: 1, frame_len: 4096 }).unwrap();
    let plain = |seed: usize| (0..FRAMES * 4096).map(|at| (at / 9 * seed) as u8).collect::<Vec<u8>>();
    let blocks = Arc::new(Blocks((1..=BLOCKS).map(|seed| encoder.encode(&plain(seed)).unwrap()).collect()));
    let config = CacheConfig { dir: None, disk_budget: 0, free_floor: 0, memory_budget: 64 << 20 };
    let cache = Cache::open(config).unwrap();
    let sources = Sources::new([Arc::new(Source::new(Arc::clone(&blocks) as Arc<dyn Origin>))]);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let deadline = Instant::now() + Duration::from_secs(600);
    for block in &blocks.0 {
        for frame in 0..FRAMES {
            runtime.block_on(cache.get(&block.desc(), frame, &sources, deadline)).unwrap();
        }
    }
    (cache, blocks)
}

/// `rounds` hits; the state is that of a random number generator.
fn hit(cache: &Cache, blocks: &[EncodedBlock], mut state: u64, rounds: u64) {
    for _ in 0..rounds {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let at = state as usize % (blocks.len() * FRAMES);
        black_box(cache.get_now(&blocks[at / FRAMES].desc(), at % FRAMES).unwrap());
    }
}

fn memory_hit(criterion: &mut Criterion) {
    let (cache, blocks) = filled();
    for (name, some) in [("random", &blocks.0[..]), ("one block", &blocks.0[..1])] {
        let mut group = criterion.benchmark_group(format!("memory_hit/{name}"));
        for threads in [1_u64, 2, 8] {
            group.bench_with_input(BenchmarkId::from_parameter(threads), &threads, |bencher, &threads| {
                bencher.iter_custom(|rounds| {
                    let started = Instant::now();
                    std::thread::scope(|scope| {
                        for seed in 1..=threads {
                            let cache = &cache;
                            scope.spawn(move || hit(cache, some, seed << 32 | 77, rounds));
                        }
                    });
                    let cores = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
                    // What one of them took: with more threads than cores they take turns.
                    started.elapsed() / threads.div_ceil(cores) as u32
                });
            });
        }
        group.finish();
    }
}

criterion_group!(benches, memory_hit);
criterion_main!(benches);
