//! Reads a tree in place: every answer is a view into the image's bytes.
//!
//! The image is hostile until [`validate`](crate::erofs::validate()) says otherwise, and the reader is safe before that:
//! whatever the bytes, it ends, does not panic, and allocates nothing. Inodes are decoded strictly on every access, so a
//! tree that [`write`](crate::erofs::write) did not make mostly fails early, with the nid and the byte that is wrong.

mod directory;
mod image;
mod map;
mod xattr;

use std::fmt;

use crate::erofs::layout::superblock::Superblock;
use crate::erofs::layout::{BLOCK_SIZE, DeviceSizes, Inode, Nid};

pub use crate::erofs::fault::{Fault, TreeError};
pub(in crate::erofs) use directory::DirBlock;
pub use directory::{Dirent, ReadDir};
pub(in crate::erofs) use image::Image;
pub use map::{Mapping, Place};
pub use xattr::{XattrRef, Xattrs};

/// An opened tree: the image's bytes and what its superblock says.
#[derive(Clone)]
pub struct Tree<B> {
    bytes: B,
    superblock: Superblock,
}

/// Without the bytes, which may be gigabytes.
impl<B> fmt::Debug for Tree<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tree").field("superblock", &self.superblock).finish_non_exhaustive()
    }
}

/// Length in bytes that the superblock in the first bytes of a tree declares, for judging a tree before all of it is
/// there. `None` when there is no superblock.
pub fn declared_len(first: &[u8]) -> Option<u64> {
    Superblock::declared_blocks(first).map(|blocks| u64::from(blocks) * BLOCK_SIZE)
}

impl<B: AsRef<[u8]>> Tree<B> {
    /// Opens an image after checking superblock, checksum, feature bits and device table.
    ///
    /// # Errors
    /// [`TreeError`] when the superblock is not of the form that the writer emits.
    pub fn open(bytes: B) -> Result<Self, TreeError> {
        let superblock = Superblock::decode(bytes.as_ref())?;
        Ok(Self { bytes, superblock })
    }

    /// What holds the bytes.
    pub fn backing(&self) -> &B {
        &self.bytes
    }

    /// The whole image.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.as_ref()
    }

    /// The root directory.
    pub fn root(&self) -> Nid {
        self.superblock.root
    }

    /// How many inodes the superblock declares.
    pub fn inode_count(&self) -> u64 {
        self.superblock.inodes
    }

    /// How many blocks each data device must have.
    pub fn devices(&self) -> DeviceSizes {
        self.superblock.devices
    }

    /// Reads an inode.
    ///
    /// # Errors
    /// [`TreeError::Damaged`] when there is no well-formed inode at this number.
    pub fn inode(&self, nid: Nid) -> Result<Inode, TreeError> {
        self.image().inode(nid)
    }

    /// Finds a name in a directory, `.` and `..` included; touches O(log n) blocks.
    ///
    /// # Errors
    /// [`TreeError::WrongKind`] when `dir` is no directory, [`TreeError::Damaged`] when it is not well formed.
    pub fn lookup(&self, dir: &Inode, name: &[u8]) -> Result<Option<Nid>, TreeError> {
        self.image().lookup(dir, name)
    }

    /// Lists a directory from behind the entry that gave `cookie`; 0 starts at the first one. `.` and `..` come where
    /// they are sorted. Takes constant time, and any cookie is safe.
    ///
    /// # Errors
    /// [`TreeError::WrongKind`] when `dir` is no directory.
    pub fn read_dir(&self, dir: &Inode, cookie: u64) -> Result<ReadDir<'_>, TreeError> {
        ReadDir::new(self.image(), dir, cookie)
    }

    /// The target of a symlink.
    ///
    /// # Errors
    /// [`TreeError::WrongKind`] when it is none, [`TreeError::Damaged`] when the target is not well formed.
    pub fn read_link(&self, inode: &Inode) -> Result<&[u8], TreeError> {
        self.image().read_link(inode)
    }

    /// The xattrs of an inode: shared ones first, each kind in order of names.
    ///
    /// # Errors
    /// [`TreeError::Damaged`] when their header is not well formed.
    pub fn xattrs(&self, inode: &Inode) -> Result<Xattrs<'_>, TreeError> {
        Xattrs::new(self.image(), inode)
    }

    /// The value of the xattr with this full name, for example `user.x`.
    ///
    /// # Errors
    /// [`TreeError::Damaged`] when an entry before it is not well formed.
    pub fn xattr(&self, inode: &Inode, full_name: &[u8]) -> Result<Option<&[u8]>, TreeError> {
        for xattr in self.xattrs(inode)? {
            let xattr = xattr?;
            if full_name.strip_prefix(xattr.prefix) == Some(xattr.name) {
                return Ok(Some(xattr.value));
            }
        }
        Ok(None)
    }

    /// Where byte `offset` of a regular file lies, and how many bytes from there on lie contiguously. Neighbouring chunks
    /// are joined, up to [`Mapping::JOIN_MAX`] of them, so that a call takes constant time.
    ///
    /// # Errors
    /// [`TreeError::BeyondEnd`] when `offset` is not below the size, [`TreeError::WrongKind`] for other files,
    /// [`TreeError::Damaged`] when the chunk table is not well formed.
    pub fn map(&self, inode: &Inode, offset: u64) -> Result<Mapping<'_>, TreeError> {
        self.image().map(inode, offset)
    }

    pub(in crate::erofs) fn image(&self) -> Image<'_> {
        Image { bytes: self.bytes.as_ref(), superblock: &self.superblock }
    }
}
