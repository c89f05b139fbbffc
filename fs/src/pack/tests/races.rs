//! Trees that change while they are packed. The walk and the reading are run one after the other here, so that the
//! change falls between them on every run.

use super::read::{Event, What};
use super::*;

/// [`pack`], with something happening after the walk.
fn pack_meddled(
    tree: &Path,
    options: &PackOptions,
    store: &DirStore,
    meddle: impl FnOnce(),
) -> Result<Report, PackError> {
    let (progress, cancel) = (Progress::default(), AtomicBool::new(false));
    let mut walked = walk::walk(tree, options, &progress, &cancel)?;
    meddle();
    let uploads = encode::Uploads::new(store);
    let laid = thread::scope(|scope| {
        let encoders = encode::Encoders::start(scope, options, &uploads);
        let mut layout = layout::Layout::new(options, encoders);
        for event in read::in_order(scope, &walked, options.threads, &progress, &cancel) {
            let event = event.expect("nobody cancels");
            layout.take(&walked, event, options.skip_changed)?;
        }
        layout.finish()
    });
    finish::finish(&mut walked, laid?, options, &uploads)
}

fn skipping() -> PackOptions {
    PackOptions { skip_changed: true, ..threads(2) }
}

/// A tree of a file that will change between others that will not.
fn three(lab: &Lab) -> PathBuf {
    let tree = lab.tree("t");
    for (name, seed) in [("a", 1), ("b", 2), ("c", 3)] {
        write(&tree, name, &noise(seed, 300_000));
    }
    settle(&tree);
    tree
}

type Change = (&'static str, fn(&Path));

const CHANGES: [Change; 9] = [
    ("cut", |b| File::options().write(true).open(b).unwrap().set_len(100_000).unwrap()),
    ("emptied", |b| drop(File::create(b).unwrap())),
    ("grown", |b| File::options().write(true).open(b).unwrap().set_len(400_000).unwrap()),
    ("rewritten in place", |b| File::options().write(true).open(b).unwrap().write_all_at(b"!", 9).unwrap()),
    ("removed", |b| fs::remove_file(b).unwrap()),
    ("replaced by its copy", |b| {
        let copy = b.with_extension("copy");
        fs::copy(b, &copy).unwrap();
        set_mtime(&copy, 1_700_000_000, 5);
        fs::rename(copy, b).unwrap();
    }),
    ("replaced by a symlink", |b| {
        fs::remove_file(b).unwrap();
        std::os::unix::fs::symlink("a", b).unwrap();
    }),
    ("replaced by a socket", |b| {
        fs::remove_file(b).unwrap();
        std::os::unix::net::UnixListener::bind(b).unwrap();
    }),
    ("made executable", |b| {
        fs::set_permissions(b, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    }),
];

#[test]
fn a_file_that_changed_since_the_walk_is_named() {
    for (what, change) in CHANGES {
        let lab = Lab::new();
        let tree = three(&lab);
        let b = tree.join("b");
        let outcome = pack_meddled(&tree, &threads(2), &lab.store("s"), || change(&b));
        assert!(matches!(&outcome, Err(PackError::Changed(path)) if *path == b), "{what}: {outcome:?}");
    }
}

#[test]
fn a_file_that_changed_is_left_out_and_told_on_request() {
    for (what, change) in CHANGES {
        let lab = Lab::new();
        let tree = three(&lab);
        let b = tree.join("b");
        let store = lab.store("s");
        let report = pack_meddled(&tree, &skipping(), &store, || change(&b)).unwrap();
        assert_eq!(report.skipped, [b], "{what}");
        let packed = Packed::open(&store, report.cid);
        assert!(packed.find("b").is_none(), "{what}");
        assert!(packed.read("a") == noise(1, 300_000) && packed.read("c") == noise(3, 300_000), "{what}");
        assert_eq!((report.inodes, report.content_bytes), (3, 600_000), "{what}");
    }
}

#[test]
fn every_name_of_a_skipped_hardlink_is_left_out() {
    let lab = Lab::new();
    let tree = three(&lab);
    lab.tree("t/z");
    fs::hard_link(tree.join("b"), tree.join("z/b")).unwrap();
    let store = lab.store("s");
    let report = pack_meddled(&tree, &skipping(), &store, || CHANGES[0].1(&tree.join("b"))).unwrap();
    let packed = Packed::open(&store, report.cid);
    assert!(packed.find("b").is_none() && packed.find("z/b").is_none() && packed.find("z").is_some());
}

#[test]
fn a_small_file_that_changed_does_not_damage_its_bundle() {
    let lab = Lab::new();
    let tree = lab.tree("t");
    for n in 0..50 {
        write(&tree, &format!("{n:02}"), &noise(n, 3000));
    }
    let store = lab.store("s");
    let changed = tree.join("20");
    let report = pack_meddled(&tree, &skipping(), &store, || write(&tree, "20", b"short")).unwrap();
    assert_eq!(report.skipped, [changed]);
    let packed = Packed::open(&store, report.cid);
    for n in (0..50).filter(|n| *n != 20) {
        assert!(packed.read(&format!("{n:02}")) == noise(n, 3000), "{n}");
    }
}

#[test]
fn a_run_that_fails_leaves_no_temporary_files() {
    let lab = Lab::new();
    let tree = lab.tree("t");
    mixed(&tree);
    write(&tree, "zz", &noise(77, 100_000));
    let store = lab.store("s");
    pack_meddled(&tree, &threads(2), &store, || CHANGES[4].1(&tree.join("zz"))).unwrap_err();
    let root = store.root().to_owned();
    drop(store);
    assert_eq!(files_of(&root), [] as [PathBuf; 0], "what never became durable has no name");
}

/// How the last file of a tree ends when `change` happens after its first piece arrived. The file is much longer than
/// what the reader may have ahead, so it is in the middle of it.
fn end_of(tree: &Path, change: impl FnOnce()) -> What {
    let (progress, cancel) = (Progress::default(), AtomicBool::new(false));
    let walked = walk::walk(tree, &threads(1), &progress, &cancel).unwrap();
    thread::scope(|scope| {
        let events = read::in_order(scope, &walked, 1, &progress, &cancel);
        let mut events = events.map(|event| event.expect("nobody cancels"));
        let first = events.next();
        assert!(matches!(first, Some(Event { what: What::Piece(_), .. })), "{first:?}");
        change();
        let last = events.last();
        last.expect("a file has an end").what
    })
}

#[test]
fn a_change_in_the_middle_of_reading_is_seen() {
    let lab = Lab::new();
    let tree = lab.tree("t");
    let large = tree.join("large");
    let make = || {
        fs::write(&large, noise(1, 32 << 20)).unwrap();
        settle(&tree);
    };
    let open = || File::options().write(true).open(&large).unwrap();
    make();
    assert!(matches!(end_of(&tree, || ()), What::End { .. }));
    let cut = end_of(&tree, || open().set_len(31 << 20).unwrap());
    assert!(matches!(cut, What::Changed), "{cut:?}");
    make();
    // Behind the reader's back: the bytes at the front were read long ago.
    let rewritten = end_of(&tree, || open().write_all_at(b"!", 5).unwrap());
    assert!(matches!(rewritten, What::Changed), "{rewritten:?}");
    make();
    // The reader holds the file open: what it reads is what the walk saw, under whatever name.
    let removed = end_of(&tree, || fs::remove_file(&large).unwrap());
    assert!(matches!(removed, What::Changed), "{removed:?}");
}

/// Between walk and reading, `d` becomes something else. ELOOP, ENOTDIR and ENXIO used to end even a run that skips.
#[test]
fn a_directory_swapped_for_something_else_leads_nowhere() {
    let swaps: [fn(&Path, &Path); 2] = [
        |d, outside| std::os::unix::fs::symlink(outside, d).unwrap(),
        |d, _| fs::write(d, b"no directory").unwrap(),
    ];
    for swap in swaps {
        let lab = Lab::new();
        let tree = lab.tree("t");
        write(&tree, "d/file", &noise(1, 5000));
        let outside = lab.tree("outside");
        write(&outside, "file", &noise(2, 5000));
        let store = lab.store("s");
        let report = pack_meddled(&tree, &skipping(), &store, || {
            fs::rename(tree.join("d"), lab.dir.path().join("away")).unwrap();
            swap(&tree.join("d"), &outside);
        });
        let report = report.unwrap();
        assert_eq!(report.skipped, [tree.join("d/file")]);
        assert_eq!(report.content_bytes, 0, "nothing of the outside came in");
    }
}
