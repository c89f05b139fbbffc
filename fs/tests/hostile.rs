//! Hostile flists: every CID is right and the content lies. Each one is refused by a clear error, when it is opened or
//! when the lie is read; `check` names the object or the root; nothing panics, and nothing asks for memory that the
//! stored bytes do not justify.

#[path = "support/forge.rs"]
mod forge;
#[path = "support/lab.rs"]
#[allow(dead_code, reason = "each test file uses its part")]
mod lab;

#[path = "hostile/blocks.rs"]
mod blocks;
#[path = "hostile/maps.rs"]
mod maps;
#[path = "hostile/pieces.rs"]
mod pieces;
#[path = "hostile/roots.rs"]
mod roots;
#[path = "hostile/shards.rs"]
mod shards;
#[path = "hostile/trees.rs"]
mod trees;

use std::alloc::{GlobalAlloc, Layout, System};
use std::error::Error;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use g8_cache::{BlockId, GetError};
use g8_fs::check::{CheckProgress, CheckReport, check};
use g8_fs::filesystem::FsError;
use g8_fs::pack::PackOptions;

use forge::Forge;
use lab::{Objects, Packed};

/// Remembers the largest allocation that anything in this process asked for.
struct Watched;

static LARGEST: AtomicUsize = AtomicUsize::new(0);
/// Far more than any test here needs, far less than what the lies declare.
const MEMORY_LIMIT: usize = 64 << 20;

// SAFETY: every call is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Watched {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LARGEST.fetch_max(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the same promises to us.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        LARGEST.fetch_max(size, Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Watched = Watched;

const SOON: Duration = Duration::from_secs(20);

/// The honest flist that all forgeries begin with, in frames of 64 KiB.
static HONEST: LazyLock<Packed> = LazyLock::new(|| {
    lab::pack_files(lab::sample(), &PackOptions { frame_len: 65_536, threads: 2, ..PackOptions::default() })
});

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
}

/// An error and everything below it.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

fn checked(id: BlockId, objects: &Objects) -> CheckReport {
    runtime().block_on(check(id, &lab::from_map(objects), SOON, &CheckProgress::default()))
}

/// The forgery cannot be opened, for the reason `says`, and `check` blames one of `blamed` for the same.
fn refused_as(what: &str, id: BlockId, objects: &Objects, blamed: &[BlockId], kind: &str, says: &str) {
    let opened = runtime().block_on(lab::open(id, &lab::memory(), &lab::from_map(objects), SOON));
    let Err(error) = opened else { panic!("{what}: was opened") };
    assert!(chain(&error).contains(says), "{what}: opening says {:?}", chain(&error));
    let report = checked(id, objects);
    let named = report.problems.iter().find(|p| blamed.contains(&p.object) && p.kind == kind);
    assert!(named.is_some(), "{what}: check says {:?}", report.problems);
    let largest = LARGEST.load(Ordering::Relaxed);
    assert!(largest < MEMORY_LIMIT, "{what}: {largest} bytes were asked for at once");
}

/// [`refused_as`], with the root to blame, or one of the pieces it links to.
fn refused(what: &str, forge: Forge, kind: &str, says: &str) {
    let pieces: Vec<_> = forge.root.tree.iter().chain(&forge.root.map).cloned().collect();
    let (id, objects) = forge.seal();
    let mut blamed: Vec<BlockId> = pieces.iter().filter_map(|cid| BlockId::try_from(cid).ok()).collect();
    blamed.push(id);
    refused_as(what, id, &objects, &blamed, kind, says);
}

/// What reading the files gives: those whose contents are not as before must say that their flist is damaged.
fn damaged_files(id: BlockId, objects: &Objects) -> Vec<String> {
    runtime().block_on(async {
        let fs = lab::open(id, &lab::memory(), &lab::from_map(objects), SOON).await.unwrap();
        let mut damaged = Vec::new();
        for (path, contents) in &HONEST.files {
            match lab::read_all(&fs, path).await {
                Ok(bytes) => assert!(bytes == *contents, "{path} has wrong bytes"),
                Err(FsError::Get(GetError::Damaged { .. })) => damaged.push(path.clone()),
                Err(other) => panic!("{path}: {}", chain(&other)),
            }
        }
        damaged
    })
}

#[test]
fn the_honest_flist_is_accepted() {
    let forge = Forge::of(&HONEST);
    let mut linked = Forge::of(&HONEST);
    linked.link();
    assert_eq!(linked.root, forge.root, "taking apart and putting together changes nothing");
    assert!(damaged_files(HONEST.id, &HONEST.objects).is_empty());
    let report = checked(HONEST.id, &HONEST.objects);
    assert!(report.problems.is_empty(), "{:?}", report.problems);
    assert_eq!(report.objects, HONEST.objects.len() as u64);
}
