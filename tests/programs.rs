//! Programs that start from far away: what they will read next comes before they ask, by what they say themselves.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use harness::origin::Link;
use harness::{Flist, Origin, compare, rootfs, wait};

/// Far enough that fetching more than is asked for is worth it.
const FAR: Link = Link { round_trip: Duration::from_millis(20), bytes_per_second: None };
const SOON: Duration = Duration::from_secs(30);

/// The libraries of a root file system, whole.
fn libraries(root: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root.join("lib"), root.join("lib64")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    assert!(found.len() >= 2, "a loader and a C library at least: {found:?}");
    found
}

#[test]
fn who_reads_the_beginning_of_a_program_has_its_libraries_without_asking() {
    let publisher = Flist::new();
    let source = publisher.home().join("source");
    rootfs::build(&source, &["/bin/ls"]);
    // Between the program and its libraries in the order of the tree, and more than is fetched as neighbours.
    let tree = harness::tree::Builder::at(&source.join("between"));
    let mut rng = harness::prng::SplitMix64::new(7);
    for file in 0..20 {
        tree.file(format!("{file}"), &rng.bytes(500_000));
    }
    tree.finish();
    let cid = publisher.pack(&source);
    let origin = Origin::over(publisher.store());
    origin.link(FAR);
    let user = Flist::new();
    let mounted = user.mount_with(&cid, &["--from", &origin.url()]);

    let mut beginning = [0; 64];
    fs::File::open(mounted.join("bin/ls")).unwrap().read_exact(&mut beginning).unwrap();
    assert!(beginning.starts_with(b"\x7fELF"));
    // Nobody has asked for more; what comes now came by itself.
    let asked = || origin.asked().len();
    let mut before = asked();
    wait::until("nothing more is asked for", SOON, || {
        std::thread::sleep(Duration::from_millis(500));
        std::mem::replace(&mut before, asked()) == asked()
    });
    origin.down();
    for library in libraries(&source) {
        let name = library.strip_prefix(&source).unwrap();
        assert!(fs::read(mounted.join(name)).unwrap() == fs::read(&library).unwrap(), "{}", name.display());
    }
    origin.up();
    compare::assert_same(&source, mounted.path());
}
