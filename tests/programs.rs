//! Programs that start from far away: what they will read next comes before they ask, by what they say themselves.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use harness::origin::Link;
use harness::{Flist, Mounted, Origin, compare, rootfs, wait};

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

/// Waits until nobody asks `origin` for anything any more.
fn quiet(origin: &Origin) {
    let asked = || origin.asked().len();
    let mut before = asked();
    wait::until("nothing more is asked for", SOON, || {
        std::thread::sleep(Duration::from_millis(700));
        std::mem::replace(&mut before, asked()) == asked()
    });
}

/// Reads the first page of a file and nothing beside it.
fn begins(mounted: &Mounted<'_>, name: &str) {
    let mut file = fs::File::open(mounted.join(name)).unwrap();
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::Random).unwrap();
    let mut beginning = [0; 64];
    file.read_exact(&mut beginning).unwrap();
    assert!(beginning.starts_with(b"\x7fELF"));
}

/// Bytes of a program that says it needs a hundred libraries, whose names lie as far apart as can be.
fn hostile(len: usize) -> Vec<u8> {
    const DYNAMIC: usize = 4096;
    const NAMES: usize = 120;
    let mut program = harness::prng::SplitMix64::new(9).bytes(len);
    let mut put = |at: usize, bytes: &[u8]| program[at..at + bytes.len()].copy_from_slice(bytes);
    let number = |value: usize| (value as u64).to_le_bytes();
    put(0, &[0; 64 + 2 * 56]);
    put(0, b"\x7fELF\x02\x01\x01");
    // x86-64, and where two segments are described: all of the file, at address 0, and the dynamic section.
    put(18, &[62]);
    put(32, &number(64));
    put(54, &[56, 0, 2]);
    for (at, kind, from, bytes) in [(64, 1, 0, len), (64 + 56, 2, DYNAMIC, (NAMES + 2) * 16)] {
        put(at, &[kind]);
        for (field, value) in [(8, from), (16, from), (32, bytes)] {
            put(at + field, &number(value));
        }
    }
    // The table of strings, DT_STRTAB, begins where the file does.
    put(DYNAMIC, &[number(5), number(0)].concat());
    for name in 1..=NAMES {
        let at = name * (len / (NAMES + 1));
        put(DYNAMIC + name * 16, &[number(1), number(at)].concat());
        put(at, b"libnone.so\0");
    }
    put(DYNAMIC + (NAMES + 1) * 16, &[0; 16]);
    program
}

/// What it names is looked up in as many blocks as it likes, and each would have to be fetched.
#[test]
fn a_program_that_names_libraries_all_over_itself_brings_no_more_than_it_may() {
    const MOST: u64 = 16 << 20;
    let publisher = Flist::new();
    let source = publisher.home().join("source");
    let tree = harness::tree::Builder::at(&source);
    let program = hostile(40 << 20);
    tree.file("program", &program);
    tree.finish();
    let cid = publisher.pack(&source);
    let origin = Origin::over(publisher.store());
    origin.link(FAR);
    let user = Flist::new();
    let mounted = user.mount_with(&cid, &["--from", &origin.url(), "--mode", "fuse", "--deadline", "60"]);
    begins(&mounted, "program");
    quiet(&origin);
    let brought = mounted.status().bytes_fetched;
    assert!(brought > MOST / 2, "it was hardly followed: {brought} bytes");
    // The metadata, the first page and what lies around it come beside.
    assert!(brought < MOST + (2 << 20), "it brought {brought} bytes");
    assert!(fs::read(mounted.join("program")).unwrap() == program);
}

#[test]
fn what_is_fetched_for_later_is_no_reading() {
    let publisher = Flist::new();
    let source = publisher.home().join("source");
    rootfs::build(&source, &["/bin/ls"]);
    let cid = publisher.pack(&source);
    let origin = Origin::over(publisher.store());
    origin.link(FAR);
    let user = Flist::new();
    let mounted = user.mount_with(&cid, &["--from", &origin.url(), "--mode", "fuse"]);
    begins(&mounted, "bin/ls");
    quiet(&origin);
    let status = mounted.status();
    // What it waited for, and the rest of the frame that this lies in, which the kernel is given at once.
    assert!(status.requests > 0 && status.bytes_read <= status.requests << 16, "{status:#?}");
    assert!(status.hits_memory <= status.requests && status.hits_disk == 0, "{status:#?}");
    assert!(status.bytes_fetched > 1 << 20, "its libraries are here: {status:#?}");
}
