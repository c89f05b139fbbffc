//! The memory tier.

use std::sync::Arc;

use g8_cache::{BlockDesc, GetError, Hit};

use crate::harness::*;

#[tokio::test(flavor = "multi_thread")]
async fn the_budget_is_respected_and_used() {
    let blocks = blocks(60, 300_000);
    let origin = Arc::new(TestOrigin::good(&blocks));
    let (cache, sources) = (memory_only(4 * MIB), sources([&origin]));
    for block in &blocks {
        read_all(&cache, std::slice::from_ref(block), &sources).await;
        let memory = cache.stats().memory;
        assert!(memory.bytes <= 4 * MIB, "{memory:?}");
    }
    assert!(cache.stats().memory.bytes > 3 * MIB, "{:?}", cache.stats().memory);
    cache.clear();
    assert_eq!(cache.stats().memory.bytes, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_any_budget_reads_still_work() {
    let blocks = blocks(3, 300_000);
    let origin = Arc::new(TestOrigin::good(&blocks));
    read_all(&memory_only(0), &blocks, &sources([&origin])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sequential_reader_fetches_each_block_once() {
    let blocks = blocks(4, 1_000_000);
    let mut origin = TestOrigin::good(&blocks);
    origin.keep = false;
    let origin = Arc::new(origin);
    let cache = memory_only(16 * MIB);
    read_all(&cache, &blocks, &sources([&origin])).await;
    assert_eq!(origin.calls(), 4);
    let hits = cache.stats().hits;
    assert_eq!((hits.source, hits.memory), (4, 60));
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_are_handed_out_whole() {
    let blocks = blocks(1, 300_000);
    let origin = Arc::new(TestOrigin::good(&blocks));
    let (cache, sources) = (memory_only(16 * MIB), sources([&origin]));
    let id = blocks[0].encoded.id;
    for _ in 0..2 {
        let object = cache.get_object(id, &sources, soon()).await.unwrap();
        assert_eq!((object.id(), object.bytes()), (id, &blocks[0].encoded.stored));
    }
    assert_eq!(origin.calls(), 1);
    assert_eq!(sources.fetch_verified(id, soon()).await.unwrap().bytes(), &blocks[0].encoded.stored);
    assert_eq!(origin.calls(), 2);
}

/// A hostile flist may name a block of an honest one and call its compressed frames raw. Keyed by index alone, the
/// memory tier would hand those compressed bytes to the honest mount.
#[tokio::test(flavor = "multi_thread")]
async fn flists_that_cut_a_block_differently_never_see_each_others_frames() {
    let tmp = tempfile::tempdir().unwrap();
    let block = Block::of([vec![7; 30_000], random(3, 166_608)].concat(), 65_536);
    assert!(block.encoded.frames[0] < 65_536, "the frame that is called raw must not be");
    let stored = block.encoded.stored.clone();
    // Frame 0 of both descriptions decodes to 65,536 bytes.
    let as_raw: Vec<u32> = stored.chunks(65_536).map(|frame| frame.len() as u32).collect();
    let hostile = BlockDesc::new(block.encoded.id, stored.len() as u32, 65_536, &as_raw).unwrap();
    let origin = Arc::new(TestOrigin::good(std::slice::from_ref(&block)));
    let sources = sources([&origin]);
    for dir in [None, Some(tmp.path())] {
        for memory in [0, 16 * MIB] {
            let cache = g8_cache::Cache::open(config(dir, 16 * MIB, memory)).unwrap();
            for _ in 0..2 {
                let (raw, _) = cache.get(&hostile, 0, &sources, soon()).await.unwrap();
                assert!(raw[..] == stored[..65_536]);
                let (plain, _) = cache.get(&block.encoded.desc(), 0, &sources, soon()).await.unwrap();
                assert!(&plain[..] == block.frame(0));
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_description_is_damage_and_not_a_missing_block() {
    let blocks = blocks(1, 200_000);
    let origin = Arc::new(TestOrigin::good(&blocks));
    let (cache, sources) = (memory_only(16 * MIB), sources([&origin]));
    let encoded = &blocks[0].encoded;
    let mut cuts = encoded.frames.clone();
    *cuts.last_mut().unwrap() -= 1;
    let wrong = BlockDesc::new(encoded.id, encoded.plain_len, encoded.frame_len, &cuts).unwrap();
    for _ in 0..2 {
        let error = cache.get(&wrong, 0, &sources, soon()).await.unwrap_err();
        assert!(matches!(error, GetError::Damaged { .. }), "{error}");
    }
    assert!(cache.get_now(&encoded.desc(), 99).is_none());
    let (_, hit) = cache.get(&encoded.desc(), 0, &sources, soon()).await.unwrap();
    assert_eq!((hit, origin.calls()), (Hit::Memory, 1));
}
