//! An interrupted run leaves whole objects, no temporary files, and a store that the next run continues from.

use std::sync::atomic::Ordering;

use super::*;

fn large_tree(lab: &Lab) -> PathBuf {
    let tree = lab.tree("t");
    for n in 0..48 {
        write(&tree, &format!("d{}/f{n}", n % 5), &noise(n, 1 << 20));
    }
    settle(&tree);
    tree
}

/// Every file in the store is an object under its own name.
fn objects_are_whole(store: &Path) -> usize {
    let files = files_of(store);
    for file in &files {
        let name = file.file_name().unwrap().to_str().unwrap();
        let id: BlockId = name.parse().unwrap_or_else(|e| panic!("{name} is no object: {e}"));
        assert_eq!(BlockId::of(id.codec(), &fs::read(file).unwrap()), id);
    }
    files.len()
}

#[test]
fn a_run_cancelled_before_it_began_writes_nothing() {
    let lab = Lab::new();
    let tree = lab.tree("t");
    mixed(&tree);
    let store = lab.store("s");
    let outcome = pack(&tree, &threads(2), &store, &Progress::default(), &AtomicBool::new(true));
    assert!(matches!(outcome, Err(PackError::Cancelled)), "{outcome:?}");
    assert!(files_of(store.root()).is_empty());
}

#[test]
fn a_run_cancelled_half_way_is_continued_by_the_next() {
    let lab = Lab::new();
    let tree = large_tree(&lab);
    let whole = lab.cid(&tree, &threads(2));
    let store = lab.store("s");
    for least in [1, 8 << 20, 24 << 20] {
        let (progress, cancel) = (Progress::default(), AtomicBool::new(false));
        let outcome = thread::scope(|scope| {
            scope.spawn(|| {
                while progress.bytes_read.load(Ordering::Relaxed) < least {
                    thread::yield_now();
                }
                cancel.store(true, Ordering::Relaxed);
            });
            pack(&tree, &threads(2), &store, &progress, &cancel)
        });
        assert!(matches!(outcome, Err(PackError::Cancelled)), "{outcome:?}");
        objects_are_whole(store.root());
        assert!(
            files_of(store.root()).iter().all(|f| !f.ends_with(whole.to_string())),
            "a root without its blocks"
        );
    }
    let kept = objects_are_whole(store.root());
    assert!(kept > 0, "what was encoded is worth keeping");
    let report = pack_into(&tree, &threads(2), &store).unwrap();
    assert_eq!(report.cid, whole);
    assert!(report.new_bytes < report.stored_bytes, "the next run found what the others stored");
    assert!(objects_are_whole(store.root()) > kept);
    Packed::open(&store, report.cid);
}
