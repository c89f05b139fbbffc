//! Holes, syncing, locks, watches, and contents that cannot be had.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt};

use harness::store::{self, How};
use harness::tree::Builder;
use harness::{Flist, Mode, SplitMix64, mapping, synthetic};
use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

/// `size` bytes with data in the first 64 KiB and the last 100,000 bytes.
fn with_hole(tree: &Builder, name: &str, size: u64) {
    let noise = SplitMix64::new(size).bytes(100_000);
    tree.sparse(name, size, &[(0, &noise[..65_536]), (size - 100_000, &noise)]);
}

#[test]
fn holes_that_fill_whole_chunks_are_seen_by_lseek() {
    let flist = Flist::new();
    let source = flist.home().join("source");
    let tree = Builder::at(&source);
    // Chunks of 4 KiB, 8 KiB and 8 MiB: at most 1,024 to a file, a power of two.
    for (name, size) in [("one", 1_u64 << 20), ("five", 5 << 20), ("large", 5 << 30)] {
        with_hole(&tree, name, size);
    }
    tree.finish();
    let cid = flist.pack(&source);
    let mounted = flist.mount(&cid);
    for (name, size, chunk) in
        [("one", 1_u64 << 20, 4096_u64), ("five", 5 << 20, 8192), ("large", 5 << 30, 8 << 20)]
    {
        let file = File::open(mounted.join(name)).unwrap();
        let hole = seek(&file, SeekFrom::Hole(0)).unwrap();
        assert_eq!(hole, 65_536_u64.next_multiple_of(chunk), "{name}");
        let data = seek(&file, SeekFrom::Data(hole)).unwrap();
        assert_eq!(data, (size - 100_000) / chunk * chunk, "{name}");
        assert_eq!(
            seek(&file, SeekFrom::Hole(data)).unwrap(),
            size,
            "{name}: behind the end there is a hole"
        );
        assert_eq!(seek(&file, SeekFrom::Data(size)), Err(Errno::NXIO));
        assert_eq!(seek(&file, SeekFrom::Hole(size + 1)), Err(Errno::NXIO));
    }
}

#[test]
fn holes_read_as_zeros_without_any_source() {
    let flist = Flist::new();
    let source = flist.home().join("source");
    let tree = Builder::at(&source);
    with_hole(&tree, "file", 8 << 20);
    tree.finish();
    let cid = flist.pack(&source);
    let mounted = flist.mount(&cid);
    fs::rename(flist.store(), flist.home().join("away")).unwrap();
    // Nothing was read yet, so mode kernel, which has no O_DIRECT, asks as well.
    let around_the_cache = match mounted.mode() {
        Mode::Fuse => libc::O_DIRECT,
        Mode::Kernel => 0,
    };
    let file = File::options().read(true).custom_flags(around_the_cache).open(mounted.join("file")).unwrap();
    let layout = std::alloc::Layout::from_size_align(4096, 4096).unwrap();
    // SAFETY: a fresh aligned allocation of 4,096 zeroed bytes that is freed below with the same layout.
    let buffer = unsafe { std::slice::from_raw_parts_mut(std::alloc::alloc_zeroed(layout), 4096) };
    buffer.fill(9);
    file.read_exact_at(buffer, 4 << 20).unwrap();
    assert!(buffer.iter().all(|b| *b == 0));
    assert!(file.read_exact_at(buffer, 0).is_err(), "data is not there");
    // SAFETY: allocated above with this layout, and not used any more.
    unsafe { std::alloc::dealloc(buffer.as_mut_ptr(), layout) };
}

#[test]
fn locking_works_unnamed_files_do_not_and_syncing_depends_on_the_mode() {
    let flist = Flist::new();
    let source = flist.home().join("source");
    synthetic::tiny(&source);
    let cid = flist.pack(&source);
    let mounted = flist.mount(&cid);
    let file = File::open(mounted.join(&synthetic::files(&source)[0])).unwrap();
    let synced = [&file, &File::open(mounted.path()).unwrap()].map(rustix::fs::fsync);
    // EROFS, as every file system that cannot be written and says so, has no fsync.
    let expected = match mounted.mode() {
        Mode::Fuse => Ok(()),
        Mode::Kernel => Err(Errno::INVAL),
    };
    assert_eq!(synced, [expected; 2]);
    rustix::fs::syncfs(&file).unwrap();
    file.lock_shared().unwrap();
    file.unlock().unwrap();
    let unnamed = File::options().write(true).custom_flags(libc::O_TMPFILE).open(mounted.path());
    assert_eq!(unnamed.unwrap_err().kind(), ErrorKind::ReadOnlyFilesystem);
}

#[test]
fn watches_are_accepted_and_see_no_change() {
    let flist = Flist::new();
    let source = flist.home().join("source");
    synthetic::tiny(&source);
    let cid = flist.pack(&source);
    let mounted = flist.mount(&cid);
    let path = mounted.join(&synthetic::files(&source)[0]);
    let name = std::ffi::CString::new(path.as_os_str().as_bytes()).unwrap();
    // SAFETY: plain system calls; the descriptor is owned from here on.
    let watch = unsafe { OwnedFd::from_raw_fd(libc::inotify_init1(libc::IN_NONBLOCK | libc::IN_CLOEXEC)) };
    // SAFETY: `name` is NUL-terminated and lives over the call.
    let added = unsafe {
        libc::inotify_add_watch(watch.as_raw_fd(), name.as_ptr(), libc::IN_MODIFY | libc::IN_ATTRIB)
    };
    assert!(added >= 0);
    fs::read(&path).unwrap();
    let mut event = [0; 256];
    assert_eq!(rustix::io::read(&watch, &mut event), Err(Errno::AGAIN));
}

/// A process that maps a file gets SIGBUS where a read would give EIO.
#[test]
fn a_mapped_page_that_cannot_be_had_is_sigbus() {
    let flist = Flist::new();
    let source = flist.home().join("source");
    let tree = Builder::at(&source);
    tree.file("file", &SplitMix64::new(5).bytes(1 << 20));
    tree.finish();
    let cid = flist.pack(&source);
    let mounted = flist.mount(&cid);
    for (_, object) in store::objects(flist.store()) {
        std::mem::forget(store::damage(&object, &How::Remove));
    }
    let file = File::open(mounted.join("file")).unwrap();
    assert_eq!(mapping::byte_at(&file, 0), Err(libc::SIGBUS));
}
