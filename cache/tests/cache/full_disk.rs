//! A full or read-only file system: uncached, never a failed read, and healed when there is room again.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use g8_cache::{Cache, CacheConfig, DiskState};
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_remount, unmount};

use crate::harness::*;

/// A tmpfs of 8 MiB, gone when dropped.
struct Tmpfs(PathBuf);

impl Tmpfs {
    fn new(dir: &Path) -> Option<Tmpfs> {
        match mount("g8-cache-test", dir, "tmpfs", MountFlags::empty(), Some(c"size=8m,mode=0700")) {
            Ok(()) => Some(Tmpfs(dir.to_owned())),
            Err(errno) => {
                println!("SKIP no tmpfs here: {errno}");
                None
            }
        }
    }

    /// Takes all free space.
    fn fill(&self) {
        let filler = fs::File::create(self.0.join("filler")).unwrap();
        let mut step = 1 << 20;
        let zeros = vec![0; step];
        while step >= 512 {
            if std::io::Write::write(&mut &filler, &zeros[..step]).is_err() {
                step /= 2;
            }
        }
    }

    fn free(&self) {
        fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = unmount(&self.0, UnmountFlags::DETACH);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fills_up_means_uncached_until_there_is_room() {
    let tmp = tempfile::tempdir().unwrap();
    let Some(disk) = Tmpfs::new(tmp.path()) else { return };
    let blocks = blocks(20, 300_000);
    let origin = Arc::new(TestOrigin::good(&blocks));
    let sources = sources([&origin]);
    let cache = disk_only(&tmp.path().join("cache"), 64 * MIB);
    read_all(&cache, &blocks[..2], &sources).await;
    cache.flush();
    disk.fill();
    // The write buffer takes some blocks before the disk is asked.
    read_all(&cache, &blocks, &sources).await;
    cache.flush();
    read_all(&cache, &blocks, &sources).await;
    let stats = cache.stats().disk;
    assert_eq!(stats.state, DiskState::Sick, "{stats:?}");
    assert!(stats.put_errors > 0, "{stats:?}");
    assert_eq!(frames_here(&cache, &blocks[..2]), 10, "reads of what is on disk go on");
    disk.free();
    eventually("healing", || cache.stats().disk.state == DiskState::Ready);
    read_all(&cache, &blocks, &sources).await;
    cache.flush();
    let stats = cache.stats().disk;
    assert_eq!((stats.state, stats.healed), (DiskState::Ready, 1), "{stats:?}");
    assert_eq!(frames_here(&cache, &blocks), 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_opens_on_a_full_disk_and_heals() {
    let tmp = tempfile::tempdir().unwrap();
    let Some(disk) = Tmpfs::new(tmp.path()) else { return };
    let blocks = blocks(3, 300_000);
    let sources = sources([&Arc::new(TestOrigin::good(&blocks))]);
    disk.fill();
    let cache = disk_only(&tmp.path().join("cache"), 64 * MIB);
    read_all(&cache, &blocks, &sources).await;
    disk.free();
    eventually("healing", || cache.stats().disk.state == DiskState::Ready);
    read_all(&cache, &blocks, &sources).await;
    assert_eq!(frames_here(&cache, &blocks), 15);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_directory_is_refused_by_name_and_keeps_its_blocks() {
    let tmp = tempfile::tempdir().unwrap();
    let Some(_disk) = Tmpfs::new(tmp.path()) else { return };
    let blocks = blocks(6, 300_000);
    let sources = sources([&Arc::new(TestOrigin::good(&blocks))]);
    let dir = tmp.path().join("cache");
    {
        let cache = disk_only(&dir, 64 * MIB);
        read_all(&cache, &blocks, &sources).await;
    }
    // The kernel refuses to make a file system read-only under files that are open for writing.
    mount_remount(tmp.path(), MountFlags::RDONLY, c"").unwrap();
    let refused = Cache::open(config(Some(&dir), 64 * MIB, 0)).map(|_| ());
    assert!(refused.unwrap_err().to_string().contains("cannot be used"));
    mount_remount(tmp.path(), MountFlags::empty(), c"").unwrap();
    assert_eq!(frames_here(&disk_only(&dir, 64 * MIB), &blocks), 30);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_put_below_the_free_floor() {
    let tmp = tempfile::tempdir().unwrap();
    let blocks = blocks(3, 100_000);
    let sources = sources([&Arc::new(TestOrigin::good(&blocks))]);
    let dir = Some(tmp.path().to_owned());
    let config = CacheConfig { dir, disk_budget: 64 * MIB, free_floor: u64::MAX, memory_budget: 0 };
    let cache = Cache::open(config).unwrap();
    read_all(&cache, &blocks, &sources).await;
    let stats = cache.stats().disk;
    assert_eq!((stats.puts, stats.state), (0, DiskState::Ready));
    assert!(stats.skipped >= 3);
}
