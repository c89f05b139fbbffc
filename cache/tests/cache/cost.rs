//! What a hit costs: `cargo test --release -p g8-cache -- --ignored --nocapture cost`.

use std::sync::Arc;
use std::time::Instant;

use crate::harness::*;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn cost_of_hits() {
    let tmp = tempfile::tempdir().unwrap();
    for (name, frame_len, bytes) in [
        ("raw", 65_536, random as fn(u64, usize) -> Vec<u8>),
        ("raw", 262_144, random),
        ("mixed", 262_144, plain),
    ] {
        let dir = tmp.path().join(format!("{name}{frame_len}"));
        let blocks: Vec<_> = (1..200).map(|seed| Block::of(bytes(seed, 524_288), frame_len)).collect();
        let sources = sources([&Arc::new(TestOrigin::good(&blocks))]);
        let disk = disk_only(&dir, 1024 * MIB);
        read_all(&disk, &blocks, &sources).await;
        disk.flush();
        drop(disk);
        let disk = disk_only(&dir, 1024 * MIB);
        measure(&format!("disk hit, {name} frames of {} KiB", frame_len / 1024), &disk, &blocks);
        drop(disk);
        let memory = memory_only(1024 * MIB);
        read_all(&memory, &blocks, &sources).await;
        measure(&format!("memory hit, {name} frames of {} KiB", frame_len / 1024), &memory, &blocks);
    }
}

fn measure(what: &str, cache: &g8_cache::Cache, blocks: &[Block]) {
    let mut times = Vec::new();
    for _ in 0..5 {
        for block in blocks {
            let desc = block.encoded.desc();
            for index in 0..block.frames() {
                let start = Instant::now();
                let found = cache.get_now(&desc, index);
                times.push(start.elapsed());
                assert!(found.is_some());
            }
        }
    }
    times.sort();
    let at = |part: usize| times[times.len() * part / 100];
    println!("{what}: p50 {:?}, p99 {:?}", at(50), at(99));
}
