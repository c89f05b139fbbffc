//! A disk that gives back other bytes than it got: never wrong bytes, and the cache repairs itself.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::harness::*;

fn filled(dir: &Path, blocks: &[Block]) -> tokio::runtime::Runtime {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let sources = sources([&Arc::new(TestOrigin::good(blocks))]);
    let cache = disk_only(dir, 64 * MIB);
    runtime.block_on(read_all(&cache, blocks, &sources));
    runtime
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> =
        fs::read_dir(dir.join("db")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn flipped_bytes_in_files_never_become_wrong_bytes() {
    let tmp = tempfile::tempdir().unwrap();
    let blocks = blocks(12, 70_000);
    let good = tmp.path().join("good");
    let runtime = filled(&good, &blocks);
    let sources = sources([&Arc::new(TestOrigin::good(&blocks))]);
    let (mut damaged, mut survived) = (0, 0);
    for seed in 0..120_u64 {
        let dir = tmp.path().join("bad");
        let _ = fs::remove_dir_all(&dir);
        crash_image(&good, &dir);
        let sst = files(&dir).into_iter().find(|path| path.extension().is_some_and(|e| e == "sst")).unwrap();
        let mut bytes = fs::read(&sst).unwrap();
        let noise = random(seed, 64);
        for flip in noise.chunks(8).take(1 + seed as usize % 8) {
            let at = u64::from_le_bytes(flip.try_into().unwrap()) as usize;
            // Every second round hits the end of the file: filter, index and footer.
            let span = if seed % 2 == 0 { bytes.len() } else { 2000 };
            let at = bytes.len() - 1 - at % span;
            bytes[at] ^= flip[0] | 1;
        }
        fs::write(&sst, bytes).unwrap();
        let cache = disk_only(&dir, 64 * MIB);
        survived += frames_here(&cache, &blocks);
        runtime.block_on(read_all(&cache, &blocks, &sources));
        damaged += cache.stats().disk.damaged;
    }
    println!("{damaged} entries found damaged, {survived} frames survived");
    assert!(damaged > 100 && survived > 100, "{damaged} {survived}");
}

#[test]
fn a_damaged_value_is_deleted_and_fetched_again() {
    let tmp = tempfile::tempdir().unwrap();
    let blocks = blocks(3, 70_000);
    let runtime = filled(tmp.path(), &blocks);
    {
        let mut options = rocksdb::Options::default();
        options.set_disable_auto_compactions(true);
        let families = [("blocks", options.clone())];
        let db = rocksdb::DB::open_cf_with_opts(&options, tmp.path().join("db"), families).unwrap();
        let family = db.cf_handle("blocks").unwrap();
        let entries: Vec<_> =
            db.iterator_cf(family, rocksdb::IteratorMode::Start).map(|entry| entry.unwrap()).collect();
        assert_eq!(entries.len(), 3);
        let mut flipped = entries[0].1.to_vec();
        *flipped.last_mut().unwrap() ^= 1;
        db.put_cf(family, &entries[0].0, flipped).unwrap();
        // A right entry in the place of another block.
        db.put_cf(family, &entries[1].0, &entries[2].1).unwrap();
        db.put_cf(family, &entries[2].0, b"").unwrap();
    }
    let cache = disk_only(tmp.path(), 64 * MIB);
    frames_here(&cache, &blocks);
    assert_eq!(cache.stats().disk.damaged, 3);
    let origin = Arc::new(TestOrigin::good(&blocks));
    runtime.block_on(read_all(&cache, &blocks, &sources([&origin])));
    assert_eq!(frames_here(&cache, &blocks), 6);
    assert_eq!(cache.stats().disk.damaged, 3);
}

#[test]
fn any_file_of_the_database_may_be_missing_cut_or_garbage() {
    let tmp = tempfile::tempdir().unwrap();
    let blocks = blocks(4, 70_000);
    let good = tmp.path().join("good");
    let runtime = filled(&good, &blocks);
    let sources = sources([&Arc::new(TestOrigin::good(&blocks))]);
    for file in files(&good) {
        let name = file.file_name().unwrap().to_str().unwrap();
        for damage in ["missing", "empty", "cut", "garbage", "directory"] {
            let dir = tmp.path().join("bad");
            let _ = fs::remove_dir_all(&dir);
            crash_image(&good, &dir);
            let path = dir.join("db").join(name);
            let bytes = fs::read(&path).unwrap();
            match damage {
                "missing" => fs::remove_file(&path).unwrap(),
                "empty" => fs::write(&path, b"").unwrap(),
                "cut" => fs::write(&path, &bytes[..bytes.len() / 2]).unwrap(),
                "garbage" => fs::write(&path, random(1, bytes.len())).unwrap(),
                _ => {
                    fs::remove_file(&path).unwrap();
                    fs::create_dir(&path).unwrap();
                }
            }
            let cache = disk_only(&dir, 64 * MIB);
            frames_here(&cache, &blocks);
            runtime.block_on(read_all(&cache, &blocks, &sources));
            if damage == "directory" {
                continue;
            }
            let disk = cache.stats().disk;
            assert_eq!(frames_here(&cache, &blocks), 8, "{name} {damage}: {disk:?}");
        }
    }
}

#[test]
fn a_lost_key_empties_the_cache() {
    let tmp = tempfile::tempdir().unwrap();
    let blocks = blocks(4, 70_000);
    let runtime = filled(tmp.path(), &blocks);
    fs::write(tmp.path().join("key"), b"short").unwrap();
    let cache = disk_only(tmp.path(), 64 * MIB);
    assert_eq!(frames_here(&cache, &blocks), 0);
    assert_eq!(cache.stats().disk.damaged, 0);
    let origin = Arc::new(TestOrigin::good(&blocks));
    runtime.block_on(read_all(&cache, &blocks, &sources([&origin])));
    assert_eq!(frames_here(&cache, &blocks), 8);
    assert!(tmp.path().join("db.damaged").exists());
    cache.gc();
    assert!(!tmp.path().join("db.damaged").exists());
}
