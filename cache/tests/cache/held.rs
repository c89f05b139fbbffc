//! What a cache gives to others: whole blocks that are here, and no trace of who took them.

use std::sync::Arc;

use g8_cache::{BlockId, Codec};

use crate::harness::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_block_that_came_in_frames_is_given_whole_and_leaves_no_trace() {
    let tmp = tempfile::tempdir().unwrap();
    let blocks = blocks(6, 300_000);
    let origin = Arc::new(TestOrigin::good(&blocks));
    let cache = disk_only(tmp.path(), 64 * MIB);
    read_all(&cache, &blocks, &sources([&origin])).await;
    cache.flush();
    drop(cache);
    let cache = g8_cache::Cache::open(config(Some(tmp.path()), 64 * MIB, 64 * MIB)).unwrap();
    let before = cache.stats();
    for block in &blocks {
        assert_eq!(block.frames(), 5);
        let held = cache.held(block.encoded.id).await.expect("all of it is here");
        assert_eq!((held.id(), held.bytes()), (block.encoded.id, &block.encoded.stored));
    }
    assert!(cache.held(BlockId::of(Codec::Raw, b"nowhere")).await.is_none());
    assert_eq!(cache.stats(), before, "neither counted nor kept in memory");
    // What is in memory alone, as blocks of local stores are, is here too.
    let memory = memory_only(64 * MIB);
    memory.get_object(blocks[0].encoded.id, &sources([&origin]), soon()).await.unwrap();
    assert!(memory.held(blocks[0].encoded.id).await.is_some());
    assert!(memory.held(blocks[1].encoded.id).await.is_none());
}

/// The same use by a reader of the cache keeps them (`disk::what_is_used_survives_a_scan`).
#[tokio::test(flavor = "multi_thread")]
async fn what_others_take_stays_no_longer_for_it() {
    let tmp = tempfile::tempdir().unwrap();
    let cache = disk_only(tmp.path(), 16 * MIB);
    let taken: Vec<_> = (0..8).map(|seed| Block::of(random(seed, 40_000), 65_536)).collect();
    let scanned: Vec<_> = (100..400).map(|seed| Block::of(random(seed, 200_000), 65_536)).collect();
    let all: Vec<_> = taken.iter().chain(&scanned).map(|b| Block::of(b.plain.clone(), 65_536)).collect();
    let sources = sources([&Arc::new(TestOrigin::good(&all))]);
    read_all(&cache, &taken, &sources).await;
    for some in scanned.chunks(10) {
        for block in some {
            cache.get(&block.encoded.desc(), 0, &sources, soon()).await.unwrap();
        }
        std::thread::sleep(std::time::Duration::from_millis(150));
        for block in &taken {
            cache.held(block.encoded.id).await;
        }
    }
    let disk = cache.stats().disk;
    assert_eq!((frames_here(&cache, &taken), disk.second_chances), (0, 0), "{disk:?}");
}
