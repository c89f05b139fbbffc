//! The daemon dies at any moment while its cache is being filled: the machine mounts again, and no byte is ever wrong.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use harness::prng::SplitMix64;
use harness::{Flist, compare, synthetic, wait};
use rustix::process::{Pid, Signal, kill_process};

const SOON: Duration = Duration::from_secs(20);
const ROUNDS: u64 = 8;

fn kill(pid: i32) {
    kill_process(Pid::from_raw(pid).expect("a daemon has a pid"), Signal::KILL).expect("the daemon runs");
    wait::for_the_end_of(pid, SOON);
}

#[test]
fn kill_9_while_readers_fill_the_cache_never_shows_a_wrong_byte() {
    let flist = Flist::new();
    let source = flist.home().join("source");
    synthetic::sixty_megabytes(&source);
    let files: Vec<(PathBuf, Vec<u8>)> = synthetic::files(&source)
        .into_iter()
        .map(|f| (f.clone(), fs::read(source.join(&f)).unwrap()))
        .collect();
    let cid = flist.pack(&source);
    let dir = flist.mountpoint();
    let (right, failed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    for round in 0..ROUNDS {
        let mounted = flist.mount_at(&cid, &dir, &["--cache-local"]);
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for reader in 0..4 {
                let (files, dir, stop, right, failed) = (&files, &dir, &stop, &right, &failed);
                scope.spawn(move || {
                    let mut rng = SplitMix64::new(round * 10 + reader);
                    while !stop.load(Ordering::Relaxed) {
                        let (rel, expected) = &files[rng.below(files.len() as u64) as usize];
                        match read_some(&dir.join(rel), expected.len(), &mut rng) {
                            Ok((at, bytes)) => {
                                let same = bytes == expected[at..at + bytes.len()];
                                assert!(same, "round {round}: WRONG BYTES in {} at {at}", rel.display());
                                right.fetch_add(1, Ordering::Relaxed);
                            }
                            Err(e) => {
                                let code = e.raw_os_error();
                                let fair = [libc::EIO, libc::ENOTCONN, libc::ECONNABORTED];
                                assert!(code.is_some_and(|c| fair.contains(&c)), "round {round}: {e}");
                                failed.fetch_add(1, Ordering::Relaxed);
                                std::thread::sleep(Duration::from_millis(1));
                            }
                        }
                    }
                });
            }
            std::thread::sleep(Duration::from_millis(40 + round * 60));
            kill(mounted.pid());
            stop.store(true, Ordering::Relaxed);
        });
        std::mem::forget(mounted);
    }
    assert!(
        right.load(Ordering::Relaxed) > 100,
        "the readers hardly read: {right:?} right, {failed:?} failed"
    );
    let mounted = flist.mount_at(&cid, &dir, &["--cache-local"]);
    compare::assert_same(&source, mounted.path());
    mounted.umount();

    // Whatever reached the disk is right; whatever did not is an error without the store.
    fs::rename(flist.store(), flist.home().join("away")).unwrap();
    fs::create_dir(flist.store()).unwrap();
    let mounted = flist.mount_at(&cid, &dir, &["--cache-local"]);
    let served = files.iter().filter(|(rel, expected)| match fs::read(mounted.join(rel)) {
        Ok(bytes) => {
            assert!(bytes == *expected, "WRONG BYTES in {} from the cache", rel.display());
            true
        }
        Err(_) => false,
    });
    assert!(served.count() > files.len() / 2, "the cache healed and kept what was read after the last crash");
}

type Harm = fn(&Path, u64);

/// A cache is the nearest untrusted origin: a torn or rotten file in it costs speed, never bytes.
#[test]
fn every_file_of_the_cache_may_rot_and_the_bytes_stay_right() {
    let flist = Flist::new();
    let source = flist.home().join("source");
    synthetic::seven_megabytes(&source);
    let cid = flist.pack(&source);
    let fill = || {
        let mounted = flist.mount_with(&cid, &["--cache-local"]);
        compare::assert_same(&source, mounted.path());
        let pid = mounted.pid();
        mounted.umount();
        wait::for_the_end_of(pid, SOON);
    };
    fill();
    let names: Vec<PathBuf> = synthetic::files(flist.cache());
    assert!(!names.is_empty(), "the cache is on disk");
    let rot: [(&str, Harm); 4] = [
        ("a flipped bit", |path, seed| flip(path, seed, 1)),
        ("many flipped bits", |path, seed| flip(path, seed, 200)),
        ("cut in half", |path, _| {
            let file = fs::OpenOptions::new().write(true).open(path).unwrap();
            file.set_len(file.metadata().unwrap().len() / 2).unwrap();
        }),
        ("gone", |path, _| fs::remove_file(path).unwrap()),
    ];
    for (what, harm) in rot {
        for (i, rel) in synthetic::files(flist.cache()).iter().enumerate() {
            eprintln!("{what}: {}", rel.display());
            harm(&flist.cache().join(rel), i as u64);
        }
        fill();
    }
}

fn flip(path: &Path, seed: u64, times: u64) {
    let file = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let len = file.metadata().unwrap().len();
    let mut rng = SplitMix64::new(seed);
    for _ in 0..times.min(len) {
        let at = rng.below(len);
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        byte[0] ^= 1 << rng.below(8);
        file.write_all_at(&byte, at).unwrap();
    }
}

fn read_some(path: &Path, len: usize, rng: &mut SplitMix64) -> std::io::Result<(usize, Vec<u8>)> {
    let at = rng.below(len as u64) as usize;
    let mut bytes = vec![0; (len - at).min(1 + rng.below(300_000) as usize)];
    fs::File::open(path)?.read_exact_at(&mut bytes, at as u64)?;
    Ok((at, bytes))
}
