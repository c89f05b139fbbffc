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

type Entry = (Box<[u8]>, Box<[u8]>);

/// Changes the entries of a closed database behind the back of its cache.
fn tamper(dir: &Path, change: impl FnOnce(&rocksdb::DB, &rocksdb::ColumnFamily, &[Entry])) {
    let mut options = rocksdb::Options::default();
    options.set_disable_auto_compactions(true);
    let families = [("blocks", options.clone())];
    let db = rocksdb::DB::open_cf_with_opts(&options, dir.join("db"), families).unwrap();
    let family = db.cf_handle("blocks").unwrap();
    let entries: Vec<_> =
        db.iterator_cf(family, rocksdb::IteratorMode::Start).map(|entry| entry.unwrap()).collect();
    change(&db, family, &entries);
}

#[test]
fn a_damaged_entry_is_deleted_and_fetched_again_and_its_neighbours_stand() {
    let tmp = tempfile::tempdir().unwrap();
    let blocks = blocks(3, 70_000);
    let runtime = filled(tmp.path(), &blocks);
    tamper(tmp.path(), |db, family, entries| {
        assert_eq!(entries.len(), 6, "two frames of each block, side by side");
        let mut flipped = entries[0].1.to_vec();
        *flipped.last_mut().unwrap() ^= 1;
        db.put_cf(family, &entries[0].0, flipped).unwrap();
        // A right entry in the place of another block, and in that of another frame.
        db.put_cf(family, &entries[2].0, &entries[4].1).unwrap();
        db.put_cf(family, &entries[3].0, &entries[2].1).unwrap();
        db.put_cf(family, &entries[4].0, b"").unwrap();
    });
    let cache = disk_only(tmp.path(), 64 * MIB);
    assert_eq!(frames_here(&cache, &blocks), 2);
    assert_eq!(cache.stats().disk.damaged, 4);
    let origin = Arc::new(TestOrigin::good(&blocks));
    runtime.block_on(read_all(&cache, &blocks, &sources([&origin])));
    assert_eq!(frames_here(&cache, &blocks), 6);
    assert_eq!(cache.stats().disk.damaged, 4);
}

/// Frames fall out alone: to others a block with a hole is not here, whichever frame it lacks.
#[test]
fn a_block_that_is_partly_here_is_not_given_to_others() {
    let tmp = tempfile::tempdir().unwrap();
    let blocks = blocks(6, 300_000);
    let runtime = filled(tmp.path(), &blocks);
    tamper(tmp.path(), |db, family, entries| {
        for (lacking, block) in blocks[..5].iter().enumerate() {
            let mut id = entries.iter().filter(|(key, _)| key[1..33] == *block.encoded.id.digest());
            db.delete_cf(family, &id.nth(lacking).unwrap().0).unwrap();
        }
    });
    let cache = disk_only(tmp.path(), 64 * MIB);
    for (at, block) in blocks.iter().enumerate() {
        let held = runtime.block_on(cache.held(block.encoded.id));
        assert_eq!(held.is_some(), at == 5, "block {at} lacks frame {at}");
    }
    assert_eq!(cache.stats().disk.damaged, 0);
    assert_eq!(frames_here(&cache, &blocks), 5 * 4 + 5, "what is here is read all the same");
}

#[test]
fn entries_of_an_earlier_version_are_misses() {
    let tmp = tempfile::tempdir().unwrap();
    let blocks = blocks(2, 70_000);
    let runtime = filled(tmp.path(), &blocks);
    tamper(tmp.path(), |db, family, entries| {
        for (key, value) in entries {
            db.delete_cf(family, key).unwrap();
            // One entry a block, under the key of the block alone.
            db.put_cf(family, &key[..33], value).unwrap();
        }
    });
    let cache = disk_only(tmp.path(), 64 * MIB);
    assert_eq!(frames_here(&cache, &blocks), 0);
    let sources = sources([&Arc::new(TestOrigin::good(&blocks))]);
    runtime.block_on(read_all(&cache, &blocks, &sources));
    assert_eq!((frames_here(&cache, &blocks), cache.stats().disk.damaged), (4, 0));
}

/// The frames of a block fall out one by one, and two flists may cut it differently: whatever mix is left, it is right
/// bytes or a miss, and what is fetched again heals it.
#[test]
fn any_mix_of_frames_gives_right_bytes_or_none() {
    let tmp = tempfile::tempdir().unwrap();
    let block = Block::of(random(5, 300_000), 65_536);
    let id = block.encoded.id;
    let cut = |frame_len: usize| -> Vec<u32> {
        block.plain.chunks(frame_len).map(|frame| frame.len() as u32).collect()
    };
    let cuts = [65_536, 100_000, 30_000, 300_000].map(|frame_len| (frame_len, cut(frame_len)));
    let runtime = filled(tmp.path(), std::slice::from_ref(&block));
    let origin = Arc::new(TestOrigin::good(std::slice::from_ref(&block)));
    let sources = sources([&origin]);
    let mut words = random(9, 8 * 600)
        .chunks(8)
        .map(|word| u64::from_le_bytes(word.try_into().unwrap()) as usize)
        .collect::<Vec<_>>();
    let mut word = || words.pop().unwrap();
    let (mut here, mut looked) = (0, 0);
    for _ in 0..100 {
        tamper(tmp.path(), |db, family, entries| {
            for _ in 0..word() % 3 {
                db.delete_cf(family, &entries[word() % entries.len()].0).unwrap();
            }
        });
        let cache = disk_only(tmp.path(), 64 * MIB);
        let (frame_len, frames) = &cuts[word() % cuts.len()];
        let desc = g8_cache::BlockDesc::new(id, 300_000, *frame_len as u32, frames).unwrap();
        let index = word() % frames.len();
        let right = block.plain.chunks(*frame_len).nth(index).unwrap();
        looked += 1;
        if let Some((frame, _)) = cache.get_now(&desc, index) {
            assert!(frame[..] == *right);
            here += 1;
        }
        let (frame, _) = runtime.block_on(cache.get(&desc, index, &sources, soon())).unwrap();
        assert!(frame[..] == *right);
        let object = runtime.block_on(cache.get_object(id, &sources, soon())).unwrap();
        assert!(*object.bytes() == block.encoded.stored);
        assert_eq!(cache.stats().disk.damaged, 0);
    }
    println!("{here} of {looked} were here, {} fetches", origin.calls());
    assert!(here > 10 && here < looked, "{here} of {looked}");
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
