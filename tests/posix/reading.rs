//! Reading: at any offset, through mmap, O_DIRECT, exec, from many threads; and statfs.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::process::Command;

use harness::oddities::{self, Scale};
use harness::prng::{FNV_START, SplitMix64, fnv1a};
use harness::tree::Builder;
use harness::{Flist, Mode, process, synthetic};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// One file of every nature: noise, text, zeros inside, holes, and none of them of an even size.
fn plant(source: &Path) {
    let mut rng = SplitMix64::new(21);
    let tree = Builder::at(source);
    tree.file("noise", &rng.bytes((5 << 20) + 1234));
    tree.file("text", &rng.text((3 << 20) + 17));
    tree.file("small", &rng.bytes(5001));
    let island = rng.bytes(20_000);
    tree.sparse("sparse", (6 << 20) + 99, &[(0, &island[..1]), (1 << 20, &island), ((5 << 20) + 3, &island)]);
    tree.finish();
}

const FILES: [&str; 4] = ["noise", "text", "small", "sparse"];

#[test]
fn two_thousand_reads_at_odd_offsets_return_the_bytes_of_the_source() {
    let flist = Flist::new();
    let source = flist.home().join("source");
    plant(&source);
    let cid = flist.pack(&source);
    let mounted = flist.mount(&cid);
    let mut rng = SplitMix64::new(22);
    for round in 0..2000 {
        let name = FILES[rng.below(4) as usize];
        let (a, b) = (File::open(source.join(name)).unwrap(), File::open(mounted.join(name)).unwrap());
        let size = a.metadata().unwrap().len();
        // Some begin behind the end, many cross it.
        let offset = rng.below(size + 10_000);
        let len = 1 + rng.below([10, 5000, 300_000][round % 3]) as usize;
        let (x, y) = (read_at(&a, offset, len), read_at(&b, offset, len));
        assert!(x == y, "{name}: {len} bytes at {offset} differ ({} and {} read)", x.len(), y.len());
    }
}

#[test]
fn a_mapped_file_shows_the_same_bytes_and_zeros_behind_its_end() {
    let flist = Flist::new();
    let source = flist.home().join("source");
    plant(&source);
    let cid = flist.pack(&source);
    let mounted = flist.mount(&cid);
    for name in FILES {
        let expected = fs::read(source.join(name)).unwrap();
        let file = File::open(mounted.join(name)).unwrap();
        let len = expected.len().next_multiple_of(4096);
        // SAFETY: a fresh private mapping of a file that nobody can truncate; it is unmapped after its last use.
        unsafe {
            let at = mmap(std::ptr::null_mut(), len, ProtFlags::READ, MapFlags::PRIVATE, &file, 0).unwrap();
            let bytes = std::slice::from_raw_parts(at.cast::<u8>(), len);
            assert!(bytes[..expected.len()] == expected[..], "{name} differs through mmap");
            assert!(bytes[expected.len()..].iter().all(|b| *b == 0), "{name}: bytes behind the end");
            munmap(at, len).unwrap();
        }
    }
}

/// EROFS over files has no O_DIRECT: open says so, and nothing reads around the page cache by mistake.
#[test]
fn o_direct_reads_the_same_bytes_or_is_refused_at_open() {
    let flist = Flist::new();
    let source = flist.home().join("source");
    plant(&source);
    let cid = flist.pack(&source);
    let mounted = flist.mount(&cid);
    for name in FILES {
        let expected = fs::read(source.join(name)).unwrap();
        let opened = File::options().read(true).custom_flags(libc::O_DIRECT).open(mounted.join(name));
        let file = match mounted.mode() {
            Mode::Fuse => opened.unwrap(),
            Mode::Kernel => {
                assert_eq!(opened.unwrap_err().raw_os_error(), Some(libc::EINVAL), "{name}");
                continue;
            }
        };
        let mut buffer = vec![0_u8; (256 << 10) + 4096];
        let skip = buffer.as_ptr().align_offset(4096);
        let aligned = &mut buffer[skip..skip + (256 << 10)];
        for offset in (0..expected.len()).step_by(256 << 10) {
            let n = file.read_at(aligned, offset as u64).unwrap();
            let end = (offset + (256 << 10)).min(expected.len());
            assert!(aligned[..n] == expected[offset..end], "{name} differs at {offset} through O_DIRECT");
        }
    }
}

#[test]
fn programs_run_from_the_mount() {
    let flist = Flist::new();
    let source = flist.home().join("source");
    harness::rootfs::build(&source, &["/bin/true", "/bin/cat"]);
    let tree = Builder::at(&source.join("extra"));
    tree.file("script", b"#!/bin/sh\necho it runs\n");
    tree.file("data", b"not a program");
    tree.mode("script", 0o755);
    tree.mode("data", 0o755);
    let cid = flist.pack(&source);
    let mounted = flist.mount(&cid);
    let run = |rel: &str| process::run(&mut Command::new(mounted.join(rel)), process::PATIENCE);
    run("bin/true").ok();
    assert_eq!(run("extra/script").ok().text(), "it runs");
    let error = Command::new(mounted.join("extra/data")).spawn().expect_err("no program, no script");
    assert_eq!(error.raw_os_error(), Some(libc::ENOEXEC));
    // With its own loader and libraries, from the mount alone.
    let mut chroot = Command::new("chroot");
    chroot.arg(mounted.path()).args(["/bin/cat", "/extra/data"]);
    assert_eq!(process::run(&mut chroot, process::PATIENCE).ok().text(), "not a program");
}

#[test]
fn eight_threads_hash_the_whole_tree_and_agree_with_the_source() {
    let flist = Flist::new();
    let source = flist.home().join("source");
    oddities::build(&source, Scale { wide: 2_000, levels: 5 });
    fs::remove_dir_all(source.join("sparse")).unwrap();
    let files = synthetic::files(&source);
    let expected = hash_all(&source, &files, 0);
    let cid = flist.pack(&source);
    let mounted = flist.mount(&cid);
    std::thread::scope(|scope| {
        for n in 0..8 {
            let (files, mounted, expected) = (&files, &mounted, &expected);
            scope.spawn(move || assert_eq!(hash_all(mounted.path(), files, n), *expected, "thread {n}"));
        }
    });
}

#[test]
fn statfs_describes_a_full_read_only_filesystem() {
    let flist = Flist::new();
    let source = flist.home().join("source");
    synthetic::tiny(&source);
    let cid = flist.pack(&source);
    let mounted = flist.mount(&cid);
    let s = rustix::fs::statvfs(mounted.path()).unwrap();
    assert_eq!((s.f_bsize, s.f_namemax), (4096, 255));
    assert_eq!((s.f_bfree, s.f_bavail), (0, 0));
    match mounted.mode() {
        Mode::Fuse => {
            assert_eq!(s.f_ffree, 0);
            assert!(s.f_blocks > 0 && s.f_files >= 6, "{} blocks, {} inodes", s.f_blocks, s.f_files);
        }
        // The blocks of the tree alone; and as many inodes as there are numbers, of which ours are used.
        Mode::Kernel => {
            assert!((1..100).contains(&s.f_blocks), "{} blocks", s.f_blocks);
            assert_eq!((s.f_files, s.f_files - s.f_ffree), (u64::MAX, entries_below(&source)));
        }
    }
    assert!(s.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY));
    let meta = fs::metadata(mounted.join("dir/noise")).unwrap();
    assert_eq!(
        meta.blocks(),
        100_000_u64.div_ceil(4096) * 8,
        "st_blocks comes from the size, in blocks of 4 KiB"
    );
}

/// Inodes of a tree.
fn entries_below(root: &Path) -> u64 {
    let mut inodes = std::collections::HashSet::new();
    harness::walk::walk(root, &mut |v| {
        inodes.insert(v.stat.st_ino);
    })
    .unwrap();
    inodes.len() as u64
}

/// Files in an order of this thread's own, so that threads meet at the same blocks at different times.
fn hash_all(root: &Path, files: &[std::path::PathBuf], thread: u64) -> u64 {
    let mut order: Vec<usize> = (0..files.len()).collect();
    SplitMix64::new(thread).shuffle(&mut order);
    let mut hashes = vec![0; files.len()];
    for i in order {
        let bytes = fs::read(root.join(&files[i])).unwrap_or_else(|e| panic!("{}: {e}", files[i].display()));
        hashes[i] = fnv1a(FNV_START, &bytes);
    }
    hashes.iter().fold(FNV_START, |all, hash| fnv1a(all, &hash.to_le_bytes()))
}

/// What pread gives for the whole range; shorter only at the end of the file.
fn read_at(file: &File, offset: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let mut done = 0;
    while done < len {
        match file.read_at(&mut bytes[done..], offset + done as u64).unwrap() {
            0 => break,
            n => done += n,
        }
    }
    bytes.truncate(done);
    bytes
}
