//! Answers the kernel's FUSE requests, the way nydus v3's own front-end does.
//!
//! The image never changes, so every answer holds for ten years, a miss too; opening costs no request at all;
//! a listing is resumed by byte offset, so there is no directory handle. What theirs pays on every close, an
//! answered FLUSH, is paid here as well: answering ENOSYS would make this rival faster than it is.
//!
//! Limit: a kernel that lacks one of the capabilities is refused, where theirs falls back to handles.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::sync::mpsc::Sender;
use std::time::Duration;

use fuser::{
    AccessFlags, Errno, FileHandle, Filesystem, Generation, INodeNo, InitFlags, KernelConfig, LockOwner,
    OpenFlags, PollEvents, PollFlags, PollNotifier, ReplyAttr, ReplyData, ReplyDirectory, ReplyDirectoryPlus,
    ReplyEmpty, ReplyEntry, ReplyOpen, ReplyPoll, ReplyStatfs, ReplyXattr, Request,
};

use crate::image::{Image, NOTHING};
use crate::mount::End;

const TTL: Duration = Duration::from_secs(10 * 365 * 86_400);
const GENERATION: Generation = Generation(0);
const NAME_BYTES_MAX: u32 = 255;
/// fuser's 16 would throttle the kernel's read-ahead.
const BACKGROUND_REQUESTS_MAX: u16 = 64;
/// READDIRPLUS without AUTO: under AUTO the kernel looks the entries of a large directory up one by one.
const CAPABILITIES: InitFlags = InitFlags::FUSE_DO_READDIRPLUS
    .union(InitFlags::FUSE_PARALLEL_DIROPS)
    .union(InitFlags::FUSE_CACHE_SYMLINKS)
    .union(InitFlags::FUSE_NO_OPEN_SUPPORT)
    .union(InitFlags::FUSE_NO_OPENDIR_SUPPORT);

/// An image as a FUSE filesystem.
pub struct Edge {
    image: Image,
    end: Sender<End>,
}

impl Edge {
    /// `end` hears of it when the kernel has closed the connection.
    pub fn new(image: Image, end: Sender<End>) -> Self {
        Self { image, end }
    }
}

impl Filesystem for Edge {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        config
            .add_capabilities(CAPABILITIES)
            .map_err(|missing| io::Error::other(format!("this kernel's FUSE lacks {missing:?}")))?;
        config
            .set_max_background(BACKGROUND_REQUESTS_MAX)
            .map_err(|nearest| io::Error::other(format!("max_background of {nearest} at best")))?;
        Ok(())
    }

    fn destroy(&mut self) {
        let _ = self.end.send(End::Unmounted);
    }

    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if name.len() > NAME_BYTES_MAX as usize {
            return reply.error(Errno::ENAMETOOLONG);
        }
        match self.image.find(parent, name) {
            Ok(found) => reply.entry(&TTL, &found.unwrap_or(NOTHING), GENERATION),
            Err(_) => reply.error(Errno::EIO),
        }
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        match self.image.attr(ino) {
            Ok(attr) => reply.attr(&TTL, &attr),
            Err(_) => reply.error(Errno::EIO),
        }
    }

    fn readlink(&self, _req: &Request, ino: INodeNo, reply: ReplyData) {
        match self.image.link_target(ino) {
            Ok(target) => reply.data(&target),
            Err(_) => reply.error(Errno::EIO),
        }
    }

    // ENOSYS says: this open and every later one succeeds, and what is cached stays.
    fn open(&self, _req: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        reply.error(Errno::ENOSYS);
    }

    fn opendir(&self, _req: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        reply.error(Errno::ENOSYS);
    }

    fn read(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        // A fresh buffer per request would be mapped, faulted in and unmapped each time.
        thread_local! {
            static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
        }
        BUFFER.with_borrow_mut(|buffer| {
            buffer.clear();
            buffer.reserve(size as usize);
            match self.image.read(ino, offset, size, buffer) {
                Ok(_) => reply.data(buffer),
                Err(error) => {
                    eprintln!("nydus-peer: read {size} bytes at {offset} of inode {ino}: {error}");
                    reply.error(Errno::EIO);
                }
            }
        });
    }

    fn flush(&self, _req: &Request, _ino: INodeNo, _fh: FileHandle, _owner: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn readdir(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, cookie: u64, mut reply: ReplyDirectory) {
        let listed = self.image.list(ino, cookie, |entry| {
            let full = reply.add(entry.ino, entry.next, entry.kind, entry.name);
            Ok(!full)
        });
        match listed {
            Ok(()) => reply.ok(),
            Err(_) => reply.error(Errno::EIO),
        }
    }

    fn readdirplus(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        cookie: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let listed = self.image.list(ino, cookie, |entry| {
            let attr = self.image.attr(entry.ino)?;
            let full = reply.add(entry.ino, entry.next, entry.name, &TTL, &attr, GENERATION);
            Ok(!full)
        });
        match listed {
            Ok(()) => reply.ok(),
            Err(_) => reply.error(Errno::EIO),
        }
    }

    fn statfs(&self, _req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        let superblock = self.image.superblock();
        let block_size = 1 << superblock.blkszbits;
        reply.statfs(superblock.blocks(), 0, 0, superblock.inos(), 0, block_size, NAME_BYTES_MAX, block_size);
    }

    fn access(&self, _req: &Request, _ino: INodeNo, _mask: AccessFlags, reply: ReplyEmpty) {
        reply.ok();
    }

    fn poll(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _notifier: PollNotifier,
        events: PollEvents,
        _flags: PollFlags,
        reply: ReplyPoll,
    ) {
        reply.poll(events);
    }

    fn getxattr(&self, _req: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        if !self.image.has_xattrs() {
            return reply.error(Errno::ENOSYS);
        }
        let Ok(xattrs) = self.image.xattrs(ino) else { return reply.error(Errno::EIO) };
        match xattrs.iter().find(|(candidate, _)| candidate == name.as_bytes()) {
            Some((_, value)) => reply_sized(reply, size, value),
            None => reply.error(Errno::ENODATA),
        }
    }

    fn listxattr(&self, _req: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        if !self.image.has_xattrs() {
            return reply.error(Errno::ENOSYS);
        }
        let Ok(xattrs) = self.image.xattrs(ino) else { return reply.error(Errno::EIO) };
        let names: Vec<u8> = xattrs.into_iter().flat_map(|(name, _)| name.into_iter().chain([0])).collect();
        reply_sized(reply, size, &names);
    }
}

/// Size 0 asks how large the answer would be.
fn reply_sized(reply: ReplyXattr, size: u32, answer: &[u8]) {
    match u32::try_from(answer.len()) {
        Ok(needed) if size == 0 => reply.size(needed),
        Ok(needed) if needed <= size => reply.data(answer),
        _ => reply.error(Errno::ERANGE),
    }
}
