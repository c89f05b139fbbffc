//! Nothing is fetched before it is needed, and what was fetched is not needed again.

use std::fs;
use std::io::ErrorKind;
use std::time::Duration;

use harness::car::Car;
use harness::prng::SplitMix64;
use harness::{Flist, Mode, Place, compare, page_cache, store, synthetic, wait};

#[test]
fn mounting_and_walking_fetch_no_data() {
    let (flist, place) = (Flist::new(), Place::new());
    let source = place.join("source");
    synthetic::sixty_megabytes(&source);
    let cid = flist.pack(&source);
    let mounted = flist.mount(&cid);
    let entries = walk_everything(mounted.path());
    assert_eq!(entries, walk_everything(&source));
    let fetched = mounted.status().bytes_fetched;
    assert!(fetched > 0, "the metadata counts as fetched");
    assert!(fetched < 1 << 20, "{fetched} bytes fetched for the metadata of {entries} entries");
}

#[test]
fn one_small_file_fetches_less_than_three_percent() {
    let (flist, place) = (Flist::new(), Place::new());
    let source = place.join("source");
    synthetic::sixty_megabytes(&source);
    let cid = flist.pack(&source);
    let total = store::size(flist.store());
    for rel in ["dir-00/file-00", "dir-21/file-33", "dir-39/file-49"] {
        let mounted = flist.mount(&cid);
        assert!(fs::read(mounted.join(rel)).unwrap() == fs::read(source.join(rel)).unwrap(), "{rel} differs");
        let fetched = mounted.status().bytes_fetched;
        mounted.umount();
        assert!(fetched * 100 < total * 3, "{rel}: {fetched} of {total} bytes fetched");
    }
}

/// A few bytes in the middle of a large file need a block or two, not the file.
#[test]
fn a_few_bytes_of_a_big_file_do_not_fetch_all_of_it() {
    use std::os::unix::fs::FileExt;
    let (flist, place) = (Flist::new(), Place::new());
    let source = place.join("source");
    let tree = harness::tree::Builder::at(&source);
    tree.file("big", &SplitMix64::new(70).bytes(40 << 20));
    tree.finish();
    let cid = flist.pack(&source);
    let mounted = flist.mount(&cid);
    let (mut a, mut b) = ([0; 100], [0; 100]);
    fs::File::open(mounted.join("big")).unwrap().read_exact_at(&mut a, 20 << 20).unwrap();
    fs::File::open(source.join("big")).unwrap().read_exact_at(&mut b, 20 << 20).unwrap();
    assert_eq!(a, b);
    // Read-ahead of the kernel, and what the daemon adds to it, stay near the place.
    wait::until("the counters settle", Duration::from_secs(10), || {
        let before = mounted.status().bytes_fetched;
        std::thread::sleep(Duration::from_millis(200));
        before == mounted.status().bytes_fetched
    });
    let fetched = mounted.status().bytes_fetched;
    assert!(fetched < 8 << 20, "{fetched} bytes fetched for 100");
}

#[test]
fn the_second_reader_of_a_file_costs_no_source_a_byte() {
    let (flist, place) = (Flist::new(), Place::new());
    let source = place.join("source");
    synthetic::seven_megabytes(&source);
    let cid = flist.pack(&source);
    let mounted = flist.mount(&cid);
    compare::assert_same(&source, mounted.path());
    let first = mounted.status().bytes_fetched;
    // A second mount of the same image on the same daemon has an empty page cache, but shares the blocks.
    let second = flist.mount(&cid);
    page_cache::drop_contents();
    compare::assert_same(&source, second.path());
    let total = store::size(flist.store());
    let status = second.status();
    assert!(status.bytes_fetched < total / 10, "{} of {total} fetched again", status.bytes_fetched);
    assert!(status.hits_memory > 0, "{status:#?}");
    assert_eq!(first, mounted.status().bytes_fetched);
}

#[test]
fn what_was_read_is_served_from_disk_when_the_store_is_empty() {
    served_without(|store| fs::create_dir(store).unwrap());
}

/// The disk with the store is not plugged in. That is no reason to refuse what the cache holds.
#[test]
fn what_was_read_is_served_from_disk_when_the_store_is_gone() {
    served_without(|_| {});
}

/// Reads some files, takes the store away, lets `leave` put something in its place, and reads again.
fn served_without(leave: fn(&std::path::Path)) {
    let (flist, place) = (Flist::new(), Place::new());
    let source = place.join("source");
    synthetic::sixty_megabytes(&source);
    let cid = flist.pack(&source);
    let read = ["dir-00/file-00", "dir-20/file-10", "big-3"];

    let mounted = flist.mount_with(&cid, &["--cache-local"]);
    for rel in read {
        assert!(fs::read(mounted.join(rel)).unwrap() == fs::read(source.join(rel)).unwrap(), "{rel} differs");
    }
    let pid = mounted.pid();
    mounted.umount();
    wait::for_the_end_of(pid, Duration::from_secs(20));
    let away = place.join("store-moved-away");
    fs::rename(flist.store(), &away).unwrap();
    leave(flist.store());
    page_cache::drop_contents();

    let mounted = flist.mount_with(&cid, &["--cache-local"]);
    assert_ne!(mounted.pid(), pid, "a new daemon");
    for rel in read {
        let got = fs::read(mounted.join(rel)).unwrap_or_else(|e| panic!("{rel} was read before: {e}"));
        assert!(got == fs::read(source.join(rel)).unwrap(), "{rel} differs");
    }
    let status = mounted.status();
    assert!(status.hits_disk > 0, "{status:#?}");

    let unread = ["big-0", "big-5", "dir-39/file-00"];
    for rel in unread {
        let error = fs::read(mounted.join(rel)).expect_err("its blocks are nowhere");
        assert!(is_trouble(&error), "{rel}: EIO or ETIMEDOUT expected, got {error}");
        assert_ne!(error.kind(), ErrorKind::NotFound);
    }
    let _ = fs::remove_dir(flist.store());
    fs::rename(&away, flist.store()).unwrap();
    // The same mount; a failure is never remembered as an answer.
    for rel in unread {
        wait::until(&format!("{rel} is readable again"), Duration::from_secs(15), || {
            fs::read(mounted.join(rel)).is_ok()
        });
    }
    compare::assert_same(&source, mounted.path());
}

/// A local store is a disk already: copying it into the cache would only cost space.
#[test]
fn a_local_store_is_not_copied_into_the_cache_unless_asked() {
    let (flist, place) = (Flist::new(), Place::new());
    let source = place.join("source");
    synthetic::sixty_megabytes(&source);
    let cid = flist.pack(&source);
    let mounted = flist.mount(&cid);
    compare::assert_same(&source, mounted.path());
    let pid = mounted.pid();
    mounted.umount();
    wait::for_the_end_of(pid, Duration::from_secs(20));
    let cached = disk_usage(flist.cache());
    assert!(cached < 20 << 20, "{cached} bytes in the cache");
}

/// Neither contents nor metadata, whichever way they are read.
#[test]
fn of_what_is_on_this_machine_the_disk_cache_gets_not_one_entry() {
    let flist = Flist::new();
    let source = flist.home().join("source");
    synthetic::seven_megabytes(&source);
    let cid = flist.pack(&source);
    let archive = Car::of(flist.store(), &cid, |_| true).write(&flist.home().join("archive.car"));
    for spec in [flist.spec(), archive] {
        for mode in Mode::BOTH {
            let entries = |options: &[&str]| {
                let reader = Flist::new();
                let options = [&["--from", &spec, "--mode", mode.name()], options].concat();
                let mounted = reader.mount_with(&cid, &options);
                compare::assert_same(&source, mounted.path());
                let disk = reader.ok(harness::args!["cache", "stats", "--json"]).json()["disk"].clone();
                let number = |key: &str| disk[key].as_u64().unwrap_or_else(|| panic!("no {key}: {disk:#}"));
                assert_eq!(disk["state"], "ready", "{disk:#}");
                (number("entries"), number("puts"), mounted.status().hits_disk)
            };
            assert_eq!(entries(&[]), (0, 0, 0), "{spec}, {mode:?}");
            // That it would have been seen.
            let (some, puts, _) = entries(&["--cache-local"]);
            assert!(some > 0 && puts > 0, "{spec}, {mode:?}: {some} entries by {puts} puts");
        }
    }
}

#[test]
fn the_cache_keeps_to_its_size() {
    let (flist, place) = (Flist::new(), Place::new());
    let source = place.join("source");
    synthetic::sixty_megabytes(&source);
    let cid = flist.pack(&source);
    let mounted = flist.mount_with(&cid, &["--cache-local", "--cache-size", "16MiB"]);
    compare::assert_same(&source, mounted.path());
    let pid = mounted.pid();
    mounted.umount();
    wait::for_the_end_of(pid, Duration::from_secs(20));
    let cached = disk_usage(flist.cache());
    assert!(cached < 40 << 20, "{cached} bytes in a cache of 16 MiB");
    flist.ok(harness::args!["cache", "stats"]);
    flist.ok(harness::args!["cache", "clear"]);
    assert!(disk_usage(flist.cache()) < 2 << 20, "{} bytes after clear", disk_usage(flist.cache()));
}

fn is_trouble(error: &std::io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EIO | libc::ETIMEDOUT))
}

fn walk_everything(root: &std::path::Path) -> usize {
    let mut entries = 0;
    harness::walk::walk(root, &mut |_| entries += 1).unwrap();
    entries
}

fn disk_usage(dir: &std::path::Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    synthetic::files(dir).iter().map(|f| fs::metadata(dir.join(f)).map_or(0, |m| m.blocks() * 512)).sum()
}
