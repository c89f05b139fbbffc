//! One flight per missing block.

use std::sync::Arc;
use std::time::{Duration, Instant};

use g8_cache::GetError;

use crate::harness::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_hundred_readers_fetch_once() {
    for memory in [0, 64 * MIB] {
        let blocks = Arc::new(blocks(1, 1_000_000));
        let mut origin = TestOrigin::good(&blocks);
        origin.delay = Duration::from_millis(200);
        let origin = Arc::new(origin);
        let (cache, sources) = (memory_only(memory), sources([&origin]));
        let readers: Vec<_> = (0..100)
            .map(|reader| {
                let (cache, sources, blocks) = (cache.clone(), sources.clone(), Arc::clone(&blocks));
                tokio::spawn(async move {
                    let index = reader % blocks[0].frames();
                    let found = cache.get(&blocks[0].encoded.desc(), index, &sources, soon()).await;
                    assert!(&found.unwrap().0[..] == blocks[0].frame(index));
                })
            })
            .collect();
        for reader in readers {
            reader.await.unwrap();
        }
        assert_eq!(origin.calls(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_goes_away_takes_no_other_down() {
    let blocks = Arc::new(blocks(1, 100_000));
    let mut origin = TestOrigin::good(&blocks);
    origin.delay = Duration::from_millis(300);
    let origin = Arc::new(origin);
    let (cache, sources) = (memory_only(16 * MIB), sources([&origin]));
    let first = tokio::spawn({
        let (cache, sources, blocks) = (cache.clone(), sources.clone(), Arc::clone(&blocks));
        async move { cache.get(&blocks[0].encoded.desc(), 0, &sources, soon()).await.map(|_| ()) }
    });
    while origin.calls() == 0 {
        tokio::task::yield_now().await;
    }
    let hasty = Instant::now() + Duration::from_millis(50);
    let desc = blocks[0].encoded.desc();
    let error = cache.get(&desc, 0, &sources, hasty).await.unwrap_err();
    assert!(matches!(error, GetError::TimedOut { .. }), "{error}");
    first.abort();
    cache.get(&desc, 0, &sources, soon()).await.unwrap();
    assert_eq!(origin.calls(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_sources_of_one_mount_fail_no_other() {
    let blocks = Arc::new(blocks(1, 100_000));
    let mut bad = TestOrigin::faulty(&blocks, |_| Some(Fault::Fail));
    bad.delay = Duration::from_millis(200);
    let bad = Arc::new(bad);
    let good = Arc::new(TestOrigin::good(&blocks));
    let cache = memory_only(16 * MIB);
    let desc = blocks[0].encoded.desc();
    let (bad, good) = (sources([&bad]), sources([&good]));
    let (failed, found) = tokio::join!(cache.get(&desc, 0, &bad, soon()), cache.get(&desc, 0, &good, soon()));
    assert!(matches!(failed, Err(GetError::Unavailable { .. })));
    assert!(&found.unwrap().0[..] == blocks[0].frame(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_cache_gives_its_directory_free_though_a_flight_stalls() {
    let tmp = tempfile::tempdir().unwrap();
    let blocks = Arc::new(blocks(1, 100_000));
    let origin = Arc::new(TestOrigin::faulty(&blocks, |_| Some(Fault::Stall)));
    let (cache, sources) = (disk_only(tmp.path(), 64 * MIB), sources([&origin]));
    let hasty = Instant::now() + Duration::from_millis(100);
    cache.get(&blocks[0].encoded.desc(), 0, &sources, hasty).await.unwrap_err();
    drop(cache);
    disk_only(tmp.path(), 64 * MIB);
}
