//! The disk tier: what lasts, what falls out, and who owns the directory.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use g8_cache::{Cache, Hit, OpenError};

use crate::harness::*;

#[tokio::test(flavor = "multi_thread")]
async fn blocks_survive_reopening() {
    let tmp = tempfile::tempdir().unwrap();
    let blocks = blocks(10, 300_000);
    let origin = Arc::new(TestOrigin::good(&blocks));
    let sources = sources([&origin]);
    let cache = disk_only(tmp.path(), 64 * MIB);
    read_all(&cache, &blocks, &sources).await;
    assert_eq!(origin.calls(), 10);
    cache.flush();
    drop(cache);
    let cache = disk_only(tmp.path(), 64 * MIB);
    assert_eq!(frames_here(&cache, &blocks), 50);
    let (_, hit) = cache.get_now(&blocks[0].encoded.desc(), 0).unwrap();
    assert_eq!(hit, Hit::Disk);
    let object = cache.get_object(blocks[3].encoded.id, &sources, soon()).await.unwrap();
    assert_eq!(object.bytes(), &blocks[3].encoded.stored);
    assert_eq!(origin.calls(), 10);
    cache.clear();
    assert_eq!(frames_here(&cache, &blocks), 0);
    let mode = |name: &str| std::fs::metadata(tmp.path().join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("key"), mode("lock")), (0o600, 0o600));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_is_here_from_when_it_came_and_in_the_database_soon() {
    let tmp = tempfile::tempdir().unwrap();
    // More than may wait to be put: 8 MiB.
    let blocks: Vec<_> = (0..60).map(|seed| Block::of(random(seed, 200_000), 65_536)).collect();
    let origin = Arc::new(TestOrigin::good(&blocks));
    let sources = sources([&origin]);
    let cache = disk_only(tmp.path(), 64 * MIB);
    for (count, block) in (1..).zip(&blocks) {
        cache.get(&block.encoded.desc(), 0, &sources, soon()).await.unwrap();
        assert_eq!(frames_here(&cache, std::slice::from_ref(block)), 4);
        assert_eq!(cache.held(block.encoded.id).await.unwrap().bytes(), &block.encoded.stored);
        assert_eq!(origin.calls(), count);
    }
    read_all(&cache, &blocks, &sources).await;
    cache.bring(&blocks[0].encoded.desc(), &sources, soon()).await.unwrap();
    assert_eq!(origin.calls(), 60);
    assert_eq!(cache.stats().disk.puts, 60);

    cache.clear();
    cache.get(&blocks[0].encoded.desc(), 0, &sources, soon()).await.unwrap();
    cache.clear();
    assert_eq!((frames_here(&cache, &blocks), cache.held(blocks[0].encoded.id).await.is_some()), (0, false));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_loses_what_was_not_flushed_and_nothing_else() {
    let tmp = tempfile::tempdir().unwrap();
    let (first, last) = (blocks(4, 300_000), blocks(8, 300_000));
    let origin = Arc::new(TestOrigin::good(&last));
    let sources = sources([&origin]);
    let cache = disk_only(&tmp.path().join("live"), 64 * MIB);
    read_all(&cache, &first, &sources).await;
    cache.flush();
    read_all(&cache, &last, &sources).await;
    let image = tmp.path().join("image");
    crash_image(&tmp.path().join("live"), &image);
    let after = disk_only(&image, 64 * MIB);
    assert_eq!(frames_here(&after, &first), 20);
    read_all(&after, &last, &sources).await;
    assert_eq!(frames_here(&after, &last), 40);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_cache_flushes_by_itself() {
    let tmp = tempfile::tempdir().unwrap();
    let blocks = blocks(4, 300_000);
    let origin = Arc::new(TestOrigin::good(&blocks));
    let cache = disk_only(&tmp.path().join("live"), 64 * MIB);
    read_all(&cache, &blocks, &sources([&origin])).await;
    eventually("a crash image with all blocks", || {
        let image = tempfile::tempdir_in(tmp.path()).unwrap();
        crash_image(&tmp.path().join("live"), image.path());
        frames_here(&disk_only(image.path(), 64 * MIB), &blocks) == 20
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn local_sources_are_not_copied() {
    let tmp = tempfile::tempdir().unwrap();
    let blocks = blocks(2, 100_000);
    let mut origin = TestOrigin::good(&blocks);
    origin.keep = false;
    let cache = disk_only(tmp.path(), 64 * MIB);
    read_all(&cache, &blocks, &sources([&Arc::new(origin)])).await;
    assert_eq!((frames_here(&cache, &blocks), cache.stats().disk.puts), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn three_times_the_budget_stays_within_it() {
    let tmp = tempfile::tempdir().unwrap();
    let budget = 16 * MIB;
    let cache = disk_only(tmp.path(), budget);
    let blocks: Vec<_> = (0..240).map(|seed| Block::of(random(seed, 200_000), 65_536)).collect();
    let origin = Arc::new(TestOrigin::good(&blocks));
    let sources = sources([&origin]);
    let mut peak = 0;
    for block in &blocks {
        cache.get(&block.encoded.desc(), 0, &sources, soon()).await.unwrap();
        peak = peak.max(disk_use(tmp.path()));
    }
    cache.flush();
    eventually("the budget", || disk_use(tmp.path()) <= budget + MIB);
    let (disk, newest) = (cache.stats().disk, frames_here(&cache, &blocks[200..]));
    println!("peak {:.2} of the budget, end {:.2}, {disk:?}", ratio(peak, budget), ratio(disk.bytes, budget));
    // Two write buffers of 4 MiB may be on their way to a file, or their like not dropped yet.
    assert!(peak <= budget + 2 * 4 * MIB + MIB, "peak {:.2}", ratio(peak, budget));
    assert!(frames_here(&cache, &blocks) * 50_000 > budget as usize / 2, "too much fell out");
    assert!(newest > 100, "the newest {newest} of 160 frames");
    assert_eq!(frames_here(&cache, &blocks[..80]), 0);

    cache.set_disk_budget(6 * MIB);
    eventually("the smaller budget", || disk_use(tmp.path()) <= 8 * MIB);
    assert_eq!(cache.stats().disk.budget, 6 * MIB);
    cache.set_disk_budget(64 * MIB);
    read_all(&cache, &blocks, &sources).await;
    cache.flush();
    assert_eq!(frames_here(&cache, &blocks), 240 * 4);
}

fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole as f64
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_used_survives_a_scan() {
    let tmp = tempfile::tempdir().unwrap();
    let cache = disk_only(tmp.path(), 16 * MIB);
    let used: Vec<_> = (0..8).map(|seed| Block::of(random(seed, 40_000), 65_536)).collect();
    let scanned: Vec<_> = (100..400).map(|seed| Block::of(random(seed, 200_000), 65_536)).collect();
    let all: Vec<_> = used.iter().chain(&scanned).map(|b| Block::of(b.plain.clone(), 65_536)).collect();
    let sources = sources([&Arc::new(TestOrigin::good(&all))]);
    read_all(&cache, &used, &sources).await;
    for some in scanned.chunks(10) {
        for block in some {
            cache.get(&block.encoded.desc(), 0, &sources, soon()).await.unwrap();
        }
        // Slower than the gauges, which may be a second old.
        std::thread::sleep(std::time::Duration::from_millis(150));
        frames_here(&cache, &used);
    }
    let disk = cache.stats().disk;
    println!("{disk:?}");
    assert_eq!(frames_here(&cache, &used), 8, "{disk:?}");
    assert!(disk.second_chances >= 8 && disk.second_chances < 100, "{disk:?}");
}

#[test]
fn a_second_owner_is_told_that_the_directory_is_busy() {
    let tmp = tempfile::tempdir().unwrap();
    let first = disk_only(tmp.path(), 64 * MIB);
    let second = Cache::open(config(Some(tmp.path()), 64 * MIB, 0));
    assert!(matches!(second, Err(OpenError::Busy { .. })));
    drop(first);
    disk_only(tmp.path(), 64 * MIB);
}

#[test]
fn a_directory_that_cannot_be_made_is_named() {
    let tmp = tempfile::tempdir().unwrap();
    std::fs::write(tmp.path().join("file"), b"").unwrap();
    let error = Cache::open(config(Some(&tmp.path().join("file/cache")), MIB, 0)).map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("file/cache"), "{error}");
}
