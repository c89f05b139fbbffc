//! What mode kernel costs: few requests for small files, and no memory twice.

use std::fs::File;
use std::time::Duration;

use harness::mapping::Mapping;
use harness::memory_cgroup::MemoryCgroup;
use harness::tree::Builder;
use harness::{Flist, SplitMix64, process, synthetic, wait};

const FILES: usize = 2_000;
const DIRECTORIES: usize = 20;

/// 2,000 files of 6 to 14 KB.
fn image() -> (Flist, String, u64) {
    let flist = Flist::new();
    let tree = Builder::at(&flist.home().join("source"));
    let mut rng = SplitMix64::new(80);
    let mut pages = 0;
    for dir in 0..DIRECTORIES {
        tree.dir(format!("{dir:02}"));
        for file in 0..FILES / DIRECTORIES {
            let size = 6_000 + rng.below(8_000);
            pages += size.div_ceil(4096);
            tree.file(format!("{dir:02}/{file:03}"), &rng.bytes(size as usize));
        }
    }
    tree.finish();
    let cid = flist.pack(&flist.home().join("source"));
    (flist, cid, pages * 4096)
}

/// Reads every file in order, in `group`.
fn read_all(group: &MemoryCgroup, root: &std::path::Path) {
    let mut command = group.command("sh");
    command.args(["-c", "cd \"$0\" && find . -type f | sort | xargs cat > /dev/null"]).arg(root);
    process::run(&mut command, process::PATIENCE).ok();
}

/// The data space is laid out in tree order, so that the kernel's read-ahead joins small files. When it stopped doing so,
/// each would cost a request.
#[test]
fn small_files_read_in_order_cost_at_most_a_tenth_of_a_request_each() {
    let (flist, cid, _) = image();
    let mounted = flist.mount_with(&cid, &["--mode", "kernel"]);
    read_all(&MemoryCgroup::new("requests"), mounted.path());
    let requests = mounted.status().requests;
    assert!(requests as usize <= FILES / 10, "{requests} requests for {FILES} files");
}

/// EROFS copies what FUSE has read of small files. The group counts both copies, and the first must go when it is not
/// read any more.
#[test]
fn what_was_read_of_small_files_is_soon_in_memory_once_and_needs_nobody() {
    let (flist, cid, bytes) = image();
    let mounted = flist.mount_with(&cid, &["--mode", "kernel"]);
    let group = MemoryCgroup::new("twice");
    read_all(&group, mounted.path());
    // Mapped, so that nobody on the machine drops EROFS's copy meanwhile.
    let files =
        synthetic::files(mounted.path()).into_iter().map(|rel| File::open(mounted.join(rel)).unwrap());
    let kept: Vec<Mapping> = files.map(|f| Mapping::new(&f, f.metadata().unwrap().len() as usize)).collect();
    assert_eq!(kept.len(), FILES);
    wait::until("memory is paid once", Duration::from_secs(60), || group.page_cache() < bytes * 5 / 4);
    let requests = mounted.status().requests;
    read_all(&group, mounted.path());
    let more = mounted.status().requests - requests;
    assert!(more as usize <= FILES / 100, "{more} requests for files that the kernel has");
}
