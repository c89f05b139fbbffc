//! Short, empty and failing answers at the n-th read, through the kernel's EROFS: a reader gets right bytes or EIO, never
//! zeros and never another block, whichever way it reads.
//!
//! Ours never answers short ([`SpaceEdge`](crate::fuse::SpaceEdge)); this is what happens if that ever breaks, and when a
//! source fails in the middle of a request.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use fuser::{Errno, ReplyData};

use super::super::probe::mount_tree;
use super::*;
use crate::erofs::{self, BLOCK_SIZE, Chunk, Content, Device, DeviceSizes, Mtime, Node, NodeId, NodeKind};
use crate::fuse::{SpaceEdge, Spaces};

const PAGE: usize = BLOCK_SIZE as usize;
/// Files in `small`, each of so many blocks, one behind the other.
const SMALL_FILES: u32 = 24;
const SMALL_BLOCKS: u32 = 16;
/// Blocks of the one file in `big`.
const BIG_BLOCKS: u32 = 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Half,
    Empty,
    Error,
}

#[derive(Clone, Copy, Debug)]
enum Access {
    Stream,
    Random,
    Mapped,
}

/// Answers some reads of one space wrong.
struct Faulty {
    tree: Vec<u8>,
    space: Space,
    fault: Fault,
    /// Which ones.
    when: Range<u32>,
    reads: Arc<AtomicU32>,
}

impl Spaces for Faulty {
    fn size(&self, space: Space) -> u64 {
        match space {
            Space::Small => u64::from(SMALL_FILES * SMALL_BLOCKS) * BLOCK_SIZE,
            Space::Big => u64::from(BIG_BLOCKS) * BLOCK_SIZE,
            Space::Tree => self.tree.len() as u64,
        }
    }

    fn read(&self, space: Space, offset: u64, len: u32, reply: ReplyData) {
        if space == Space::Tree {
            return reply.data(&self.tree[offset as usize..][..len as usize]);
        }
        let bytes = contents(space, offset, len as usize);
        if space != self.space || !self.when.contains(&self.reads.fetch_add(1, Ordering::Relaxed)) {
            return reply.data(&bytes);
        }
        match self.fault {
            Fault::Half => reply.data(&bytes[..bytes.len() / 2]),
            Fault::Empty => reply.data(&[]),
            Fault::Error => reply.error(Errno::EIO),
        }
    }
}

/// What a space holds: every eight bytes say where they are, and none is zero.
fn contents(space: Space, offset: u64, len: usize) -> Vec<u8> {
    let space = u64::from(space == Space::Big) << 40;
    let word = |at: u64| (at ^ space).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 0x0101_0101_0101_0101;
    (offset..offset + len as u64).step_by(8).flat_map(|at| word(at).to_le_bytes()).collect()
}

/// Files `0` and up over `small`, `big` over `big`.
fn tree() -> Vec<u8> {
    let file = |device, block, blocks: u32| {
        let chunk = Chunk { device, block };
        let size = u64::from(blocks) * BLOCK_SIZE;
        NodeKind::Regular(Content::Chunked { size, chunk_bits: 31, chunks: vec![Some(chunk)] })
    };
    let names = (0..SMALL_FILES).map(|n| n.to_string()).chain(["big".to_owned()]);
    let entries = names.zip(1..).map(|(name, id)| (name.into_bytes(), NodeId(id))).collect();
    let mut kinds = vec![NodeKind::Directory { parent: NodeId(0), entries }];
    kinds.extend((0..SMALL_FILES).map(|n| file(Device::Small, n * SMALL_BLOCKS, SMALL_BLOCKS)));
    kinds.push(file(Device::Big, 0, BIG_BLOCKS));
    let node =
        |kind| Node { permissions: 0o755, uid: 0, gid: 0, mtime: Mtime::default(), xattrs: Vec::new(), kind };
    let nodes: Vec<Node> = kinds.into_iter().map(node).collect();
    let devices = DeviceSizes { small_blocks: SMALL_FILES * SMALL_BLOCKS, big_blocks: BIG_BLOCKS };
    erofs::write(&nodes, devices).unwrap()
}

/// Each file over a space, with what it must hold.
fn files(mounted: &OwnedFd, space: Space) -> Vec<(File, Vec<u8>)> {
    let len = (SMALL_BLOCKS * BLOCK_SIZE as u32) as usize;
    let of = match space {
        Space::Big => vec![("big".to_owned(), contents(space, 0, BIG_BLOCKS as usize * PAGE))],
        Space::Small | Space::Tree => (0..u64::from(SMALL_FILES))
            .map(|n| (n.to_string(), contents(space, n * len as u64, len)))
            .collect(),
    };
    let open =
        |name: &str| rustix::fs::openat(mounted, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    of.into_iter().map(|(name, expected)| (open(&name).unwrap().into(), expected)).collect()
}

/// How many reads of the files of a space fail; panics on a wrong byte or an error that is not EIO.
fn failures(mounted: &OwnedFd, space: Space, access: Access, what: &str) -> usize {
    files(mounted, space).iter().map(|(file, expected)| failures_of(file, expected, access, what)).sum()
}

fn failures_of(file: &File, expected: &[u8], access: Access, what: &str) -> usize {
    let right = |at: usize, bytes: &[u8]| {
        assert!(bytes == &expected[at..][..bytes.len()], "{what}: WRONG BYTES at {at}");
    };
    let failed = |at: usize, error: &io::Error, code| {
        assert_eq!(error.raw_os_error(), Some(code), "{what}: at {at}: {error}");
    };
    match access {
        Access::Stream => {
            let (mut buffer, mut at) = (vec![0; 2 << 20], 0);
            while at < expected.len() {
                match file.read_at(&mut buffer, at as u64) {
                    Ok(0) => panic!("{what}: it ends at {at}"),
                    Ok(n) => {
                        right(at, &buffer[..n]);
                        at += n;
                    }
                    Err(e) => {
                        failed(at, &e, libc::EIO);
                        return 1;
                    }
                }
            }
            0
        }
        Access::Random => {
            let pages = expected.len() / PAGE;
            // 7 has no common factor with either number of pages: every page, in an order that is nobody's read-ahead.
            (0..pages)
                .map(|n| n * 7 % pages * PAGE)
                .filter(|at| {
                    let mut page = [0; PAGE];
                    match file.read_exact_at(&mut page, *at as u64) {
                        Ok(()) => right(*at, &page),
                        Err(e) => {
                            failed(*at, &e, libc::EIO);
                            return true;
                        }
                    }
                    false
                })
                .count()
        }
        Access::Mapped => {
            let mapping = Mapped::new(file, expected.len());
            (0..expected.len())
                .step_by(PAGE)
                .filter(|at| match mapping.page(*at) {
                    Ok(page) => {
                        right(*at, &page);
                        false
                    }
                    Err(e) => {
                        failed(*at, &e, libc::EFAULT);
                        true
                    }
                })
                .count()
        }
    }
}

/// A mapped file whose pages the kernel copies, so that one that cannot be had is EFAULT and not a signal.
struct Mapped {
    at: *mut libc::c_void,
    len: usize,
    copy: File,
}

impl Mapped {
    fn new(file: &File, len: usize) -> Mapped {
        // SAFETY: a fresh mapping of a file that nobody truncates; it is unmapped when it is dropped.
        let at = unsafe {
            libc::mmap(std::ptr::null_mut(), len, libc::PROT_READ, libc::MAP_SHARED, file.as_raw_fd(), 0)
        };
        assert_ne!(at, libc::MAP_FAILED);
        let copy = rustix::fs::memfd_create("page", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        Mapped { at, len, copy: copy.into() }
    }

    fn page(&self, at: usize) -> io::Result<[u8; PAGE]> {
        assert!(at + PAGE <= self.len);
        // SAFETY: the page lies in the mapping; only the kernel reads it, and says so if it cannot.
        let copied = unsafe { libc::pwrite(self.copy.as_raw_fd(), self.at.byte_add(at), PAGE, 0) };
        if copied != PAGE as isize {
            return Err(io::Error::last_os_error());
        }
        let mut page = [0; PAGE];
        self.copy.read_exact_at(&mut page, 0)?;
        Ok(page)
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`, and nobody reads it any more.
        unsafe { libc::munmap(self.at, self.len) };
    }
}

#[test]
fn no_answer_is_so_wrong_that_a_reader_sees_anything_but_right_bytes_or_eio() {
    let (mut failed_for_ever, mut failed_once) = (0, 0);
    for space in [Space::Small, Space::Big] {
        for fault in [Fault::Half, Fault::Empty, Fault::Error] {
            for access in [Access::Stream, Access::Random, Access::Mapped] {
                for when in [0..1, 1..2, 4..5, 0..u32::MAX, 2..u32::MAX] {
                    let what = format!("{fault:?} at reads {when:?} of {space:?}, {access:?}");
                    let reads = Arc::new(AtomicU32::new(0));
                    let faulty =
                        Faulty { tree: tree(), space, fault, when: when.clone(), reads: reads.clone() };
                    let (devices, _session) = Devices::serve(SpaceEdge(faulty)).unwrap();
                    let context = rustix::mount::fsopen("erofs", FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
                    let mounted = mount_tree(context, &devices).unwrap();
                    let failures_then = failures(&mounted, space, access, &what);
                    assert!(reads.load(Ordering::Relaxed) > when.start, "{what}: it came to no wrong answer");
                    if when.end == u32::MAX {
                        assert!(failures_then > 0, "{what}: where do right bytes come from?");
                        failed_for_ever += 1;
                        continue;
                    }
                    failed_once += usize::from(failures_then > 0);
                    // A short answer tells the page cache of FUSE, which `small` has, where the file ends. All else heals.
                    if space == Space::Big || fault == Fault::Error {
                        assert_eq!(failures(&mounted, space, access, &what), 0, "{what}: it is over");
                    } else {
                        failures(&mounted, space, access, &what);
                    }
                }
            }
        }
    }
    assert_eq!(failed_for_ever, 2 * 3 * 3 * 2);
    assert!(failed_once > 0, "the kernel asks again, but not always");
}
