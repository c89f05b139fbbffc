//! The edge to the kernel: FUSE requests in, answers of the [`Filesystem`] out. It decides nothing about contents.
//!
//! An image never changes, so everything is cached for ever: entries, attributes, missing names, symlinks, pages. What
//! the kernel need not ask again it is told by `ENOSYS` (open, opendir, flush, access, and xattrs when the tree has
//! none): each such answer saves a round trip per call for the life of the mount.
//!
//! A read that would have to wait for a source leaves the session thread with its reply and is answered from the
//! runtime. Nothing is ever stored in or dropped from the page cache by FUSE_NOTIFY_STORE or _INVAL_INODE: both wait,
//! unkillable, for pages that the kernel has locked for requests which nobody has taken yet, so a daemon that is killed
//! meanwhile never ends, and neither do the reads of its mounts.

mod attr;
mod space;
mod trim;

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fuser::{
    AccessFlags, Errno, FileHandle, Generation, INodeNo, InitFlags, IoctlFlags, KernelConfig, LockOwner,
    OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl,
    ReplyLseek, ReplyOpen, ReplyStatfs, ReplyXattr, Request,
};
use g8_cache::GetError;

use crate::erofs::{self, FileKind, Inode, Nid};
use crate::filesystem::{Begins, Filesystem, FsError};
use attr::{file_attr, file_type};
pub use space::{ImageSpaces, Space, SpaceEdge, Spaces};
pub use trim::Trimmer;

/// Ten years: the kernel turns it into a number of ticks, so "for ever" must not overflow.
const FOREVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// Requests of read-ahead that may be under way; the default of 12 starves a remote source.
const MAX_BACKGROUND: u16 = 64;
/// FUSE calls the root inode 1, whatever the file system calls it.
const ROOT: u64 = 1;

/// Serves one filesystem to one mount.
pub struct Edge {
    fs: Arc<Filesystem>,
    runtime: tokio::runtime::Handle,
    allow_other: bool,
}

impl Edge {
    /// Reads that must wait run on `runtime`.
    pub fn new(fs: Arc<Filesystem>, runtime: tokio::runtime::Handle, allow_other: bool) -> Self {
        Edge { fs, runtime, allow_other }
    }

    fn nid(&self, ino: INodeNo) -> Nid {
        if ino.0 == ROOT { self.fs.image().tree.root() } else { Nid(ino.0) }
    }

    fn ino(&self, nid: Nid) -> INodeNo {
        if nid == self.fs.image().tree.root() { INodeNo(ROOT) } else { INodeNo(nid.0) }
    }

    fn attr(&self, inode: &Inode) -> fuser::FileAttr {
        file_attr(self.ino(inode.nid), inode)
    }

    fn has_xattrs(&self) -> bool {
        self.fs.image().summary.has_xattrs
    }

    /// The entries of a directory from `cookie` on, until `add` says that its buffer is full.
    fn list(
        &self,
        ino: INodeNo,
        cookie: u64,
        mut add: impl FnMut(&erofs::Dirent<'_>) -> Result<bool, FsError>,
    ) -> Result<(), FsError> {
        let dir = self.fs.inode(self.nid(ino))?;
        if !dir.is_dir() {
            return Err(FsError::NotADirectory);
        }
        for entry in self.fs.image().tree.read_dir(&dir, cookie)? {
            if add(&entry?)? {
                break;
            }
        }
        Ok(())
    }

    fn xattr_value(&self, ino: INodeNo, name: &OsStr) -> Result<Vec<u8>, FsError> {
        let inode = self.fs.inode(self.nid(ino))?;
        let value = self.fs.image().tree.xattr(&inode, name.as_bytes())?;
        value.map(<[u8]>::to_vec).ok_or(FsError::NoAttribute)
    }

    fn xattr_names(&self, ino: INodeNo) -> Result<Vec<u8>, FsError> {
        let inode = self.fs.inode(self.nid(ino))?;
        let mut names = Vec::new();
        for xattr in self.fs.image().tree.xattrs(&inode)? {
            let xattr = xattr?;
            names.extend_from_slice(xattr.prefix);
            names.extend_from_slice(xattr.name);
            names.push(0);
        }
        Ok(names)
    }
}

/// The one place where an error becomes an errno. Trouble with contents is never `ENOENT`.
pub fn errno(error: &FsError) -> i32 {
    match error {
        FsError::NotFound => libc::ENOENT,
        FsError::NameTooLong => libc::ENAMETOOLONG,
        FsError::NotADirectory => libc::ENOTDIR,
        FsError::IsADirectory => libc::EISDIR,
        FsError::NotAFile => libc::EINVAL,
        FsError::NoAttribute => libc::ENODATA,
        FsError::Loop => libc::ELOOP,
        FsError::Tree(_) => libc::EIO,
        FsError::Get(GetError::TimedOut { .. }) => libc::ETIMEDOUT,
        FsError::Get(_) => libc::EIO,
    }
}

/// The errno of a failure, which is logged here, once, under a name that `flist mounts` tells.
fn failed(fs: &Filesystem, what: impl std::fmt::Display, offset: u64, error: &FsError) -> Errno {
    if let Some(id) = fs.failed() {
        let cid = fs.image().id;
        let cause = chain(error);
        tracing::error!(%cid, %id, inode = %what, offset, cause, "request failed");
    }
    Errno::from_i32(errno(error))
}

/// Asks the kernel for what it has of `wanted`, and for room for read-ahead.
fn negotiate(config: &mut KernelConfig, wanted: &[InitFlags]) {
    for flag in wanted {
        if config.add_capabilities(*flag).is_err() {
            tracing::debug!(?flag, "this kernel lacks a FUSE capability");
        }
    }
    let background = config.set_max_background(MAX_BACKGROUND);
    let congestion = config.set_congestion_threshold(MAX_BACKGROUND / 4 * 3);
    if background.is_err() || congestion.is_err() {
        tracing::debug!("this kernel refuses our number of background requests");
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

fn sized(reply: ReplyXattr, size: u32, result: Result<Vec<u8>, FsError>) {
    match result {
        Ok(bytes) if size == 0 => reply.size(bytes.len() as u32),
        Ok(bytes) if bytes.len() as u64 <= u64::from(size) => reply.data(&bytes),
        Ok(_) => reply.error(Errno::ERANGE),
        Err(e) => reply.error(Errno::from_i32(errno(&e))),
    }
}

impl fuser::Filesystem for Edge {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let mut wanted = vec![
            InitFlags::FUSE_ASYNC_READ,
            InitFlags::FUSE_MAX_PAGES,
            InitFlags::FUSE_PARALLEL_DIROPS,
            // Without its AUTO, with which the kernel goes back to one LOOKUP an entry in large directories.
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_CACHE_SYMLINKS,
            InitFlags::FUSE_EXPLICIT_INVAL_DATA,
            InitFlags::FUSE_NO_OPEN_SUPPORT,
            InitFlags::FUSE_NO_OPENDIR_SUPPORT,
        ];
        if self.allow_other {
            // Idmapped mounts are for other users anyway. With it the kernel no longer says who asks, and fuser, told to
            // serve the owner alone, would refuse everybody.
            wanted.push(InitFlags::FUSE_ALLOW_IDMAP);
        }
        if self.has_xattrs() {
            // With it the kernel honours the ACLs it finds there; without xattrs it would only cost questions.
            wanted.push(InitFlags::FUSE_POSIX_ACL);
        }
        negotiate(config, &wanted);
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.fs.lookup(self.nid(parent), name.as_bytes()) {
            Ok(Some(inode)) => reply.entry(&FOREVER, &self.attr(&inode), Generation(0)),
            // An entry without an inode tells the kernel to remember that the name is missing.
            Ok(None) => reply.entry(&FOREVER, &attr::missing(), Generation(0)),
            Err(FsError::NameTooLong) => reply.error(Errno::ENAMETOOLONG),
            Err(e) => reply.error(failed(&self.fs, self.nid(parent), 0, &e)),
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.fs.inode(self.nid(ino)) {
            Ok(inode) => reply.attr(&FOREVER, &self.attr(&inode)),
            Err(e) => reply.error(failed(&self.fs, self.nid(ino), 0, &e)),
        }
    }

    fn readlink(&self, _: &Request, ino: INodeNo, reply: ReplyData) {
        let inode = self.fs.inode(self.nid(ino));
        match inode.and_then(|inode| Ok(self.fs.image().tree.read_link(&inode)?)) {
            Ok(target) => reply.data(target),
            Err(e) => reply.error(failed(&self.fs, self.nid(ino), 0, &e)),
        }
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.error(Errno::ENOSYS);
    }

    fn opendir(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.error(Errno::ENOSYS);
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    fn access(&self, _: &Request, _: INodeNo, _: AccessFlags, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    fn fsyncdir(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    #[allow(clippy::too_many_arguments, reason = "the signature is fuser's")]
    fn ioctl(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: IoctlFlags,
        _: u32,
        _: &[u8],
        _: u32,
        reply: ReplyIoctl,
    ) {
        // Every isatty(3) comes here; the kernel makes ENOTTY of it.
        reply.error(Errno::ENOSYS);
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
        let nid = self.nid(ino);
        self.fs.counters().requests.fetch_add(1, Ordering::Relaxed);
        match self.fs.read_now(nid, offset, size) {
            Ok(Some(contents)) => {
                reply.data(contents.as_ref());
                if let Some((device, address)) = self.fs.place_of(nid, offset) {
                    self.fs.read_ahead(device, address, size.into(), &self.runtime);
                }
            }
            Ok(None) => {
                let (fs, runtime) = (self.fs.clone(), self.runtime.clone());
                self.runtime.spawn(async move {
                    match fs.read(nid, offset, size).await {
                        Ok(contents) => {
                            reply.data(contents.as_ref());
                            if offset == 0 {
                                fs.follow_program(Begins::File(nid), contents.as_ref(), &runtime);
                            }
                        }
                        Err(e) => reply.error(failed(&fs, nid, offset, &e)),
                    }
                });
                if let Some((device, address)) = self.fs.place_of(nid, offset) {
                    self.fs.read_ahead_of_missing(device, address, size.into(), &self.runtime);
                }
            }
            Err(e) => reply.error(failed(&self.fs, nid, offset, &e)),
        }
    }

    fn readdir(&self, _: &Request, ino: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let listed = self.list(ino, offset, |entry| {
            let name = OsStr::from_bytes(entry.name);
            Ok(reply.add(self.ino(entry.nid), entry.cookie, file_type(entry.kind), name))
        });
        match listed {
            Ok(()) => reply.ok(),
            Err(e) => reply.error(failed(&self.fs, self.nid(ino), offset, &e)),
        }
    }

    fn readdirplus(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let listed = self.list(ino, offset, |entry| {
            let name = OsStr::from_bytes(entry.name);
            let attr = self.attr(&self.fs.inode(entry.nid)?);
            Ok(reply.add(self.ino(entry.nid), entry.cookie, name, &FOREVER, &attr, Generation(0)))
        });
        match listed {
            Ok(()) => reply.ok(),
            Err(e) => reply.error(failed(&self.fs, self.nid(ino), offset, &e)),
        }
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let root = &self.fs.image().root;
        let block = erofs::BLOCK_SIZE;
        reply.statfs(
            root.content_bytes.div_ceil(block),
            0,
            0,
            root.inodes,
            0,
            block as u32,
            255,
            block as u32,
        );
    }

    fn getxattr(&self, _: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        if !self.has_xattrs() {
            return reply.error(Errno::ENOSYS);
        }
        sized(reply, size, self.xattr_value(ino, name));
    }

    fn listxattr(&self, _: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        if !self.has_xattrs() {
            return reply.error(Errno::ENOSYS);
        }
        sized(reply, size, self.xattr_names(ino));
    }

    fn lseek(&self, _: &Request, ino: INodeNo, _: FileHandle, offset: i64, whence: i32, reply: ReplyLseek) {
        let nid = self.nid(ino);
        match seek(&self.fs, nid, offset, whence) {
            Ok(Some(offset)) => reply.offset(offset as i64),
            Ok(None) => reply.error(Errno::ENXIO),
            Err(FsError::NotAFile) => reply.error(Errno::EINVAL),
            Err(e) => reply.error(failed(&self.fs, nid, offset as u64, &e)),
        }
    }
}

/// Where data or a hole begins at or after `offset`; `None` behind the last data or the end of file (lseek(2)).
fn seek(fs: &Filesystem, nid: Nid, offset: i64, whence: i32) -> Result<Option<u64>, FsError> {
    let inode = fs.inode(nid)?;
    if inode.kind() != FileKind::Regular {
        return Err(FsError::NotAFile);
    }
    let Ok(mut at) = u64::try_from(offset) else { return Ok(None) };
    if at >= inode.size {
        return Ok(None);
    }
    let hole_wanted = match whence {
        libc::SEEK_HOLE => true,
        libc::SEEK_DATA => false,
        _ => return Err(FsError::NotAFile),
    };
    while at < inode.size {
        let mapping = fs.image().tree.map(&inode, at)?;
        if matches!(mapping.place, erofs::Place::Hole) == hole_wanted {
            return Ok(Some(at));
        }
        at += mapping.len;
    }
    // Behind the last byte there is always a hole.
    Ok(hole_wanted.then_some(inode.size))
}
