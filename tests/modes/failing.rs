//! Blocks that are missing or damaged in the middle: what lies around them is right, what lies in them is an error, and
//! neither is ever made up.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use harness::store::{self, How};
use harness::tree::Builder;
use harness::{Flist, Mode, SplitMix64, mapping, page_cache, synthetic, wait};

const PAGE: usize = 4096;
const SOON: Duration = Duration::from_secs(30);

/// The largest objects hold data; root, tree and map are small here.
fn data_objects(flist: &Flist) -> Vec<PathBuf> {
    let objects = store::objects(flist.store()).into_iter().map(|(_, path)| path);
    objects.filter(|path| fs::metadata(path).unwrap().len() > 100_000).collect()
}

/// Which pages of a file are right; the others are EIO. Panics on a wrong byte or another error.
fn right_pages(file: &File, expected: &[u8], what: &str) -> Vec<bool> {
    page_cache::forget(file);
    page_cache::read_at_random(file);
    let pages = expected.chunks(PAGE).enumerate().map(|(n, page)| {
        let mut bytes = vec![0; page.len()];
        match file.read_exact_at(&mut bytes, (n * PAGE) as u64) {
            Ok(()) => assert!(bytes == page, "{what}: WRONG BYTES in page {n}"),
            Err(e) => assert_eq!(e.raw_os_error(), Some(libc::EIO), "{what}: page {n}: {e}"),
        }
        bytes == page
    });
    pages.collect()
}

#[test]
fn a_block_missing_in_a_big_file_is_an_error_just_there_until_it_is_back() {
    let flist = Flist::new();
    let source = flist.home().join("source");
    let tree = Builder::at(&source);
    let expected = SplitMix64::new(31).bytes((6 << 20) + 777);
    tree.file("big", &expected);
    tree.finish();
    let cid = flist.pack(&source);
    let mut in_the_middle = 0;
    for (n, object) in data_objects(&flist).into_iter().enumerate() {
        let how = if n % 2 == 0 { How::Remove } else { How::FlipBit(4_000 * n as u64 + 5) };
        let what = format!("{how:?} of object {n}");
        let damage = store::damage(&object, &how);
        // Each on a mount of its own, since the cache is shared and asked first.
        let other = Flist::beside(&flist);
        let mounted = other.mount(&cid);
        let file = File::open(mounted.join("big")).unwrap();
        // A stream: the right prefix, then an error.
        let mut stream = Vec::new();
        let error = File::open(mounted.join("big")).unwrap().read_to_end(&mut stream).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EIO), "{what}: {error}");
        assert!(expected.starts_with(&stream), "{what}: WRONG BYTES in the stream");
        let right = right_pages(&file, &expected, &what);
        let bad: Vec<usize> = (0..right.len()).filter(|n| !right[*n]).collect();
        let (first, last) = (bad[0], bad[bad.len() - 1]);
        // Whatever was asked for at once, in the end each page is asked for alone.
        assert_eq!(last - first + 1, bad.len(), "{what}: one run of pages: {bad:?}");
        assert!(bad.len() * 2 < right.len(), "{what}: {} of {} pages", bad.len(), right.len());
        in_the_middle += usize::from(first > 0 && last + 1 < right.len());
        assert_eq!(
            mapping::byte_at(&file, ((first + bad.len() / 2) * PAGE) as u64),
            Err(libc::SIGBUS),
            "{what}"
        );
        drop(damage);
        // What was wrong is asked for again after half a minute, what was missing at once.
        if matches!(how, How::Remove) {
            wait::until(&format!("{what}: it is read when it is back"), SOON, || {
                right_pages(&file, &expected, &what).iter().all(|right| *right)
            });
            assert!(fs::read(mounted.join("big")).unwrap() == expected);
        }
    }
    assert!(in_the_middle >= 3, "{in_the_middle} blocks lay in the middle of the file");
}

/// In mode kernel read-ahead runs across the borders of small files, and so into bundles that somebody else has broken.
#[test]
fn a_missing_bundle_harms_no_file_outside_it() {
    let flist = Flist::new();
    let source = flist.home().join("source");
    let tree = Builder::at(&source);
    let mut rng = SplitMix64::new(32);
    tree.dir("dir");
    for file in 0..250 {
        let size = 2_000 + rng.below(30_000) as usize;
        tree.file(format!("dir/{file:03}"), &rng.bytes(size));
    }
    tree.finish();
    let cid = flist.pack(&source);
    let files = synthetic::files(&source);
    let bundles = data_objects(&flist);
    assert!(bundles.len() >= 4, "{} bundles", bundles.len());
    for (n, bundle) in bundles.iter().enumerate().step_by(2) {
        let damage = store::damage(bundle, &How::Remove);
        let other = Flist::beside(&flist);
        let unreadable = Mode::BOTH.map(|mode| {
            let mounted = other.mount_with(&cid, &["--mode", mode.name()]);
            let first = unreadable(&source, mounted.path(), &files);
            // Backwards, so that other neighbours are read ahead.
            page_cache::drop_contents();
            let reversed: Vec<PathBuf> = files.iter().rev().cloned().collect();
            assert_eq!(unreadable(&source, mounted.path(), &reversed), first, "{mode:?}, bundle {n}");
            first
        });
        // In mode fuse nothing is read beyond the file, so what fails there is what lies in the bundle.
        assert_eq!(unreadable[0], unreadable[1], "bundle {n}");
        assert!(!unreadable[0].is_empty() && unreadable[0].len() < files.len() / 2, "bundle {n}");
        drop(damage);
    }
}

#[test]
fn small_files_of_a_bundle_are_read_when_it_is_back() {
    let flist = Flist::new();
    let source = flist.home().join("source");
    synthetic::seven_megabytes(&source);
    let cid = flist.pack(&source);
    let files = synthetic::files(&source);
    let mounted = flist.mount(&cid);
    let damage: Vec<_> =
        data_objects(&flist).iter().map(|object| store::damage(object, &How::Remove)).collect();
    assert!(unreadable(&source, mounted.path(), &files).len() > 30);
    drop(damage);
    wait::until("everything is readable again", SOON, || {
        unreadable(&source, mounted.path(), &files).is_empty()
    });
}

/// Files whose reading is EIO. Panics on wrong bytes or another error.
fn unreadable(source: &Path, mounted: &Path, files: &[PathBuf]) -> BTreeSet<PathBuf> {
    let fails = |rel: &&PathBuf| match fs::read(mounted.join(rel)) {
        Ok(bytes) => {
            assert!(bytes == fs::read(source.join(rel)).unwrap(), "WRONG BYTES in {}", rel.display());
            false
        }
        Err(e) => {
            assert_eq!(e.raw_os_error(), Some(libc::EIO), "{}: {e}", rel.display());
            true
        }
    };
    files.iter().filter(fails).cloned().collect()
}
