//! Daemon and reader share a memory group that holds less than what is read.

use std::fs::{self, File};
use std::io::Write;
use std::time::Duration;

use harness::memory_cgroup::MemoryCgroup;
use harness::{Flist, SplitMix64, args, process, wait};

/// What the daemon may keep; the rest of the limit is left for it, the reader and the page cache.
const KEPT: &str = "16M";
const LIMIT_MIB: u64 = 96;
const BIG_MIB: usize = 320;

/// Nothing on the way of a read is dirty, so the kernel can always free a page; the daemon must not be what it waits for.
#[test]
fn daemon_and_reader_in_a_small_memory_group_read_more_than_it_holds() {
    let flist = Flist::new();
    let source = flist.home().dir("source");
    plant(&source);
    let cid = flist.pack(&source);
    let group = MemoryCgroup::new("small");
    group.limit(LIMIT_MIB);
    let dir = flist.mountpoint();
    let mut mount = group.command(flist.bin());
    mount.args(args!["mount", cid, dir, "--cache-memory", KEPT]);
    flist.environment(&mut mount);
    process::run(&mut mount, process::PATIENCE).ok();
    let mounted = flist.adopt(&dir);
    let sums = |root: &std::path::Path| {
        let mut command = group.command("sh");
        command.args(["-c", "cd \"$0\" && find . -type f | sort | xargs sha256sum"]).arg(root);
        process::run(&mut command, Duration::from_secs(180)).ok().text()
    };
    let expected = sums(&source);
    for _ in 0..2 {
        assert_eq!(sums(mounted.path()), expected);
    }
    let pid = mounted.pid();
    assert!(wait::runs(pid), "the kernel did not end the daemon for want of memory");
    mounted.umount();
    wait::for_the_end_of(pid, Duration::from_secs(30));
}

/// 320 MiB in one file and 32 MiB in small ones, no two pages alike, and quick to pack.
fn plant(source: &std::path::Path) {
    let mut rng = SplitMix64::new(51);
    let mut noise = |len: usize| {
        let mut bytes = vec![b'.'; len];
        // Every length is a multiple of this.
        bytes.chunks_mut(512).for_each(|chunk| chunk[..8].copy_from_slice(&rng.bytes(8)));
        bytes
    };
    let mut big = File::create(source.join("big")).unwrap();
    for _ in 0..BIG_MIB {
        big.write_all(&noise(1 << 20)).unwrap();
    }
    fs::create_dir(source.join("dir")).unwrap();
    for file in 0..512 {
        fs::write(source.join(format!("dir/{file}")), noise(64 << 10)).unwrap();
    }
}
