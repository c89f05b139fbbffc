//! The image in the words FUSE asks in: inode numbers, attributes, names, cookies.
//!
//! A thin skin over nydus' reader, which maps the bootstrap and copies nothing: an inode number is the
//! image's own (nid) plus one, and the root is 1. No lock, no table, no state of its own.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{FileAttr, FileType, INodeNo};
use nydus_core::ErofsReader;
use nydus_format::erofs::{self, ErofsInode, ErofsSuperblock, is_nydus_xattr};

/// The builder marks the root of an image that carries no extended attributes.
const NO_XATTR_MARK: (&[u8], &[u8]) = (b"trusted.nydus.no_xattr", b"1");

/// Stands for "no such name" in an entry reply: the kernel looks only at the inode number 0.
pub const NOTHING: FileAttr = FileAttr {
    ino: INodeNo(0),
    size: 0,
    blocks: 0,
    atime: UNIX_EPOCH,
    mtime: UNIX_EPOCH,
    ctime: UNIX_EPOCH,
    crtime: UNIX_EPOCH,
    kind: FileType::RegularFile,
    perm: 0,
    nlink: 0,
    uid: 0,
    gid: 0,
    rdev: 0,
    blksize: 0,
    flags: 0,
};

/// One directory entry as a listing meets it.
pub struct Entry<'a> {
    pub ino: INodeNo,
    pub kind: FileType,
    pub name: &'a OsStr,
    /// Where a listing goes on after this entry: a byte offset within the directory.
    pub next: u64,
}

/// An opened image.
pub struct Image {
    reader: ErofsReader,
    root_nid: u64,
    has_xattrs: bool,
}

impl Image {
    /// Looks at the root once, for what never changes.
    pub fn new(reader: ErofsReader) -> io::Result<Self> {
        let root_nid = reader.superblock().root_nid();
        let root_xattrs = reader.read_xattrs(root_nid, &reader.inode(root_nid)?)?;
        let has_xattrs = !root_xattrs.iter().any(|(name, value)| (&name[..], &value[..]) == NO_XATTR_MARK);
        Ok(Self { reader, root_nid, has_xattrs })
    }

    /// Whether asking for an extended attribute can ever find one.
    pub fn has_xattrs(&self) -> bool {
        self.has_xattrs
    }

    pub fn superblock(&self) -> &ErofsSuperblock {
        self.reader.superblock()
    }

    pub fn attr(&self, ino: INodeNo) -> io::Result<FileAttr> {
        let inode = self.reader.inode(self.nid(ino))?;
        Ok(attr(ino, &inode, self.superblock()))
    }

    /// `None`: the directory has no such name.
    pub fn find(&self, parent: INodeNo, name: &OsStr) -> io::Result<Option<FileAttr>> {
        let nid = self.nid(parent);
        let dir = self.reader.inode(nid)?;
        let found = self.reader.lookup_dir_entry(nid, &dir, name.as_bytes())?;
        found.map(|child| self.attr(self.ino(child))).transpose()
    }

    /// Visits the entries of a directory from `cookie` on, until `visit` answers false.
    pub fn list(
        &self,
        ino: INodeNo,
        cookie: u64,
        mut visit: impl FnMut(Entry<'_>) -> io::Result<bool>,
    ) -> io::Result<()> {
        let nid = self.nid(ino);
        let dir = self.reader.inode(nid)?;
        self.reader.for_each_dir_entry_from(nid, &dir, cookie, |child, file_type, name, next| {
            visit(Entry { ino: self.ino(child), kind: kind(file_type), name: OsStr::from_bytes(name), next })
        })
    }

    /// Appends up to `size` bytes of a file to `buffer`.
    pub fn read(&self, ino: INodeNo, offset: u64, size: u32, buffer: &mut Vec<u8>) -> io::Result<usize> {
        let nid = self.nid(ino);
        let inode = self.reader.inode(nid)?;
        self.reader.write_file_data_to(nid, &inode, offset, size, buffer)
    }

    pub fn link_target(&self, ino: INodeNo) -> io::Result<Vec<u8>> {
        let nid = self.nid(ino);
        self.reader.read_symlink(nid, &self.reader.inode(nid)?)
    }

    /// Names and values, without the builder's own marks.
    pub fn xattrs(&self, ino: INodeNo) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let nid = self.nid(ino);
        let mut xattrs = self.reader.read_xattrs(nid, &self.reader.inode(nid)?)?;
        if ino == INodeNo::ROOT {
            xattrs.retain(|(name, _)| !is_nydus_xattr(name));
        }
        Ok(xattrs)
    }

    fn nid(&self, ino: INodeNo) -> u64 {
        if ino == INodeNo::ROOT { self.root_nid } else { ino.0.wrapping_sub(1) }
    }

    fn ino(&self, nid: u64) -> INodeNo {
        if nid == self.root_nid { INodeNo::ROOT } else { INodeNo(nid + 1) }
    }
}

fn attr(ino: INodeNo, inode: &ErofsInode<'_>, superblock: &ErofsSuperblock) -> FileAttr {
    let block_size = 1u32 << superblock.blkszbits;
    let time = time(inode.mtime(superblock.epoch()), inode.effective_mtime_nsec(superblock.fixed_nsec()));
    let mode = inode.mode();
    let kind = kind(erofs::mode_to_erofs_file_type(mode));
    FileAttr {
        ino,
        size: inode.size(),
        blocks: inode.size().div_ceil(block_size.into()) * u64::from(block_size / 512),
        atime: time,
        mtime: time,
        ctime: time,
        crtime: time,
        kind,
        // The root's own bits are the umask of whoever staged the layer: their front-end pins them as well.
        perm: if ino == INodeNo::ROOT { mode & 0o7000 | 0o755 } else { mode & 0o7777 },
        nlink: inode.nlink(),
        uid: inode.uid(),
        gid: inode.gid(),
        rdev: if matches!(kind, FileType::CharDevice | FileType::BlockDevice) { inode.rdev() } else { 0 },
        blksize: block_size,
        flags: 0,
    }
}

/// The image stores a signed number of seconds as an unsigned one.
fn time(seconds: u64, nanoseconds: u32) -> SystemTime {
    let seconds = seconds.cast_signed();
    let distance = Duration::from_secs(seconds.unsigned_abs());
    let whole = if seconds < 0 { UNIX_EPOCH.checked_sub(distance) } else { UNIX_EPOCH.checked_add(distance) };
    let exact = whole.and_then(|time| time.checked_add(Duration::from_nanos(nanoseconds.into())));
    exact.unwrap_or(UNIX_EPOCH)
}

fn kind(file_type: u8) -> FileType {
    match file_type {
        erofs::EROFS_FT_DIR => FileType::Directory,
        erofs::EROFS_FT_SYMLINK => FileType::Symlink,
        erofs::EROFS_FT_CHRDEV => FileType::CharDevice,
        erofs::EROFS_FT_BLKDEV => FileType::BlockDevice,
        erofs::EROFS_FT_FIFO => FileType::NamedPipe,
        erofs::EROFS_FT_SOCK => FileType::Socket,
        _ => FileType::RegularFile,
    }
}
