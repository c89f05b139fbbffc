//! Many mounts of a few images come and go under readers, in one daemon.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use harness::connections::Connections;
use harness::tree::Builder;
use harness::{Flist, SplitMix64, args, mount_table, synthetic, wait};

const IMAGES: usize = 8;
const MOUNTS: usize = 64;
const CHURN: Duration = Duration::from_secs(4);
const SOON: Duration = Duration::from_secs(30);

struct Image {
    cid: String,
    files: Vec<(PathBuf, Vec<u8>)>,
}

fn image(flist: &Flist, number: usize) -> Image {
    let source = flist.home().join(&format!("source-{number}"));
    let tree = Builder::at(&source);
    let mut rng = SplitMix64::new(60 + number as u64);
    tree.dir("dir");
    for file in 0..20 {
        let size = 200 + rng.below(20_000) as usize;
        tree.file(format!("dir/{file}"), &rng.bytes(size));
    }
    tree.file("big", &rng.bytes(1_100_000));
    tree.finish();
    let files = synthetic::files(&source);
    let files = files.into_iter().map(|f| (f.clone(), fs::read(source.join(f)).unwrap())).collect();
    Image { cid: flist.pack(&source), files }
}

#[test]
fn sixty_four_mounts_of_eight_images_come_and_go_under_readers() {
    let flist = Flist::new();
    let connections = Connections::new(flist.home());
    let images: Vec<Image> = (0..IMAGES).map(|n| image(&flist, n)).collect();
    let dirs: Vec<PathBuf> = (0..MOUNTS).map(|_| flist.mountpoint()).collect();
    let mount = |n: usize| flist.ok(args!["mount", images[n % IMAGES].cid, dirs[n]]);
    (0..MOUNTS).for_each(|n| drop(mount(n)));
    let daemon = flist.mounts()[0].pid;
    let first = connections.of(daemon);
    assert_eq!(first.len(), MOUNTS, "a mount has one connection, and nobody else has any");

    let (stop, read, refused) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for reader in 0..2 {
            let (images, dirs, stop, read) = (&images, &dirs, &stop, &read);
            scope.spawn(move || {
                let mut rng = SplitMix64::new(reader);
                while !stop.load(Ordering::Relaxed) {
                    let n = rng.below(MOUNTS as u64) as usize;
                    let files = &images[n % IMAGES].files;
                    let (rel, expected) = &files[rng.below(files.len() as u64) as usize];
                    read.fetch_add(usize::from(is_read(&dirs[n].join(rel), expected)), Ordering::Relaxed);
                }
            });
        }
        let churners: Vec<_> = (0..2)
            .map(|half| {
                let (flist, dirs, mount, refused) = (&flist, &dirs, &mount, &refused);
                scope.spawn(move || {
                    let mut rng = SplitMix64::new(70 + half as u64);
                    let began = Instant::now();
                    while began.elapsed() < CHURN {
                        let n = half + 2 * rng.below(MOUNTS as u64 / 2) as usize;
                        let outcome = flist.run(args!["umount", dirs[n]]);
                        match outcome.code {
                            0 => drop(mount(n)),
                            // A reader was on it.
                            _ => {
                                assert!(outcome.stderr.contains("in use"), "{}", outcome.stderr);
                                refused.fetch_add(1, Ordering::Relaxed);
                            }
                        }
                    }
                })
            })
            .collect();
        let churned: Vec<_> = churners.into_iter().map(|c| c.join()).collect();
        stop.store(true, Ordering::Relaxed);
        churned.into_iter().for_each(|c| c.unwrap());
    });
    assert!(read.load(Ordering::Relaxed) > 100, "{read:?} files read, {refused:?} times in use");

    for (n, dir) in dirs.iter().enumerate() {
        for (rel, expected) in &images[n % IMAGES].files {
            assert!(is_read(&dir.join(rel), expected), "{} is mounted", dir.display());
        }
    }
    let last = connections.of(daemon);
    assert_eq!(last.len(), MOUNTS);
    dirs.iter().for_each(|dir| drop(flist.ok(args!["umount", dir])));
    wait::for_the_end_of(daemon, SOON);
    dirs.iter().for_each(|dir| mount_table::assert_none_under(dir));
    for connection in first.union(&last) {
        wait::until("a connection is gone", SOON, || !connections.has(*connection));
    }
}

/// Whether the file could be read; panics on a wrong byte and on any error but that nothing is mounted there now.
fn is_read(path: &Path, expected: &[u8]) -> bool {
    match fs::read(path) {
        Ok(bytes) => {
            assert!(bytes == expected, "WRONG BYTES in {}", path.display());
            true
        }
        Err(e) => {
            assert_eq!(e.raw_os_error(), Some(libc::ENOENT), "{}: {e}", path.display());
            false
        }
    }
}
