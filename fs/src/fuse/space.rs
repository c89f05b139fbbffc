//! The private file system below mode `kernel`: no tree, only the data spaces as files, which the kernel's EROFS reads
//! as its extra devices, and the tree itself where the local file system cannot back EROFS.
//!
//! `small` is cached by FUSE, so that its read-ahead runs across the borders of small files; `big` is read directly, so
//! that nothing is cached twice. Three rules of file-backed EROFS hold here: OPEN is answered (its flags say which is
//! which), no answer is short (older kernels take what is missing for zeros), and every request has a deadline (an
//! unmount waits for unanswered ones).

use std::ffi::OsStr;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::UNIX_EPOCH;

use fuser::{
    Errno, FileAttr, FileHandle, FileType, FopenFlags, Generation, INodeNo, InitFlags, KernelConfig,
    LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyEntry, ReplyOpen, Request,
};

use super::{FOREVER, ROOT, Trimmer, failed, negotiate};
use crate::erofs::{BLOCK_SIZE, Device};
use crate::filesystem::{Begins, Filesystem};

/// The files, by their inode numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// Device 1 of the tree.
    Small,
    /// Device 2 of the tree.
    Big,
    /// The tree.
    Tree,
}

impl Space {
    const ALL: [Space; 3] = [Space::Small, Space::Big, Space::Tree];

    /// Its name in the root directory.
    pub fn name(self) -> &'static str {
        match self {
            Space::Small => "small",
            Space::Big => "big",
            Space::Tree => "tree",
        }
    }

    pub(super) fn ino(self) -> INodeNo {
        INodeNo(match self {
            Space::Small => 2,
            Space::Big => 3,
            Space::Tree => 4,
        })
    }

    fn of(ino: INodeNo) -> Option<Space> {
        Space::ALL.into_iter().find(|space| space.ino() == ino)
    }

    fn open_flags(self) -> FopenFlags {
        match self {
            Space::Small | Space::Tree => FopenFlags::FOPEN_KEEP_CACHE,
            Space::Big => FopenFlags::FOPEN_DIRECT_IO,
        }
    }
}

/// What the files hold.
pub trait Spaces: Send + Sync + 'static {
    /// Bytes of a file.
    fn size(&self, space: Space) -> u64;
    /// Answers a read that lies within the file: with all of it, or with an error.
    fn read(&self, space: Space, offset: u64, len: u32, reply: ReplyData);
}

/// Serves three files to one EROFS mount.
pub struct SpaceEdge<S>(pub S);

/// The data spaces and the tree of an image.
pub struct ImageSpaces {
    fs: Arc<Filesystem>,
    runtime: tokio::runtime::Handle,
    trimmer: Trimmer,
}

impl ImageSpaces {
    /// Reads that must wait run on `runtime`; what was read of `small` is told to `trimmer`.
    pub fn new(fs: Arc<Filesystem>, runtime: tokio::runtime::Handle, trimmer: Trimmer) -> Self {
        ImageSpaces { fs, runtime, trimmer }
    }

    fn read_device(&self, space: Space, device: Device, offset: u64, len: u32, reply: ReplyData) {
        self.fs.counters().requests.fetch_add(1, Ordering::Relaxed);
        if let Some(contents) = self.fs.read_space_now(device, offset, len) {
            reply.data(contents.as_ref());
            return self.fs.read_ahead(device, offset, len.into(), &self.runtime);
        }
        let (fs, runtime) = (self.fs.clone(), self.runtime.clone());
        let read = async move {
            match fs.read_space(device, offset, len).await {
                Ok(contents) => {
                    reply.data(contents.as_ref());
                    fs.follow_program(Begins::At(device, offset), contents.as_ref(), &runtime);
                }
                Err(e) => reply.error(failed(&fs, space.name(), offset, &e)),
            }
        };
        self.runtime.spawn(read);
        self.fs.read_ahead_of_missing(device, offset, len.into(), &self.runtime);
    }
}

impl Spaces for ImageSpaces {
    fn size(&self, space: Space) -> u64 {
        let tree = &self.fs.image().tree;
        match space {
            Space::Small => u64::from(tree.devices().blocks(Device::Small)) * BLOCK_SIZE,
            Space::Big => u64::from(tree.devices().blocks(Device::Big)) * BLOCK_SIZE,
            Space::Tree => tree.bytes().len() as u64,
        }
    }

    fn read(&self, space: Space, offset: u64, len: u32, reply: ReplyData) {
        match space {
            Space::Tree => reply.data(&self.fs.image().tree.bytes()[offset as usize..][..len as usize]),
            Space::Small => {
                self.trimmer.note(offset, len);
                self.read_device(space, Device::Small, offset, len, reply);
            }
            Space::Big => self.read_device(space, Device::Big, offset, len, reply),
        }
    }
}

impl<S: Spaces> SpaceEdge<S> {
    fn attr(&self, ino: INodeNo) -> Option<FileAttr> {
        let (size, kind, perm) = match Space::of(ino) {
            Some(space) => (self.0.size(space), FileType::RegularFile, 0o400),
            None if ino.0 == ROOT => (0, FileType::Directory, 0o500),
            None => return None,
        };
        let nlink = if kind == FileType::Directory { 2 } else { 1 };
        Some(FileAttr {
            ino,
            size,
            blocks: size / 512,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind,
            perm,
            nlink,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: BLOCK_SIZE as u32,
            flags: 0,
        })
    }
}

impl<S: Spaces> fuser::Filesystem for SpaceEdge<S> {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // With FUSE_ASYNC_DIO read-ahead of `big` is asynchronous, and one failed part of a request fails all of it.
        let wanted = [InitFlags::FUSE_ASYNC_READ, InitFlags::FUSE_ASYNC_DIO, InitFlags::FUSE_MAX_PAGES];
        negotiate(config, &wanted);
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let space = Space::ALL.into_iter().find(|space| name == space.name());
        match space.and_then(|space| self.attr(space.ino())) {
            Some(attr) if parent.0 == ROOT => reply.entry(&FOREVER, &attr, Generation(0)),
            Some(_) | None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.attr(ino) {
            Some(attr) => reply.attr(&FOREVER, &attr),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn open(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        match Space::of(ino) {
            Some(space) => reply.opened(FileHandle(0), space.open_flags()),
            None => reply.error(Errno::EISDIR),
        }
    }

    #[allow(clippy::too_many_arguments, reason = "the signature is fuser's")]
    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let Some(space) = Space::of(ino) else { return reply.error(Errno::EISDIR) };
        // The file ends at a block border; only there may an answer be shorter than the question.
        let len = u64::from(size).min(self.0.size(space).saturating_sub(offset)) as u32;
        if len == 0 {
            return reply.data(&[]);
        }
        self.0.read(space, offset, len, reply);
    }
}
