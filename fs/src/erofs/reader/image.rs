//! Bounds: the one place where the reader takes bytes out of the image.

use std::fmt;

use super::{Fault, TreeError};
use crate::erofs::layout::inode::{self, Inode, Layout};
use crate::erofs::layout::superblock::Superblock;
use crate::erofs::layout::{BLOCK_SIZE, FileKind, Nid, SYMLINK_MAX};

/// An opened tree without its type parameter.
#[derive(Clone, Copy)]
pub struct Image<'a> {
    pub bytes: &'a [u8],
    pub superblock: &'a Superblock,
}

/// Without the bytes, which may be gigabytes.
impl fmt::Debug for Image<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Image").field("superblock", self.superblock).finish_non_exhaustive()
    }
}

impl<'a> Image<'a> {
    /// `len` bytes at `offset`, which belong to `nid`.
    pub fn slice(&self, nid: Nid, offset: u64, len: u64) -> Result<&'a [u8], TreeError> {
        let range = || {
            let start = usize::try_from(offset).ok()?;
            let end = start.checked_add(usize::try_from(len).ok()?)?;
            self.bytes.get(start..end)
        };
        range().ok_or(TreeError::Damaged { nid, offset, fault: Fault::Outside })
    }

    /// `N` bytes at `offset`, which belong to `nid`.
    pub fn array<const N: usize>(&self, nid: Nid, offset: u64) -> Result<&'a [u8; N], TreeError> {
        let bytes = self.slice(nid, offset, N as u64)?;
        Ok(bytes.as_array().expect("the slice has the length that was asked for"))
    }

    /// See [`Tree::inode`](super::Tree::inode).
    pub fn inode(&self, nid: Nid) -> Result<Inode, TreeError> {
        let offset = nid.offset();
        let left = (self.bytes.len() as u64).saturating_sub(offset);
        let bytes = self.slice(nid, offset, left.min(inode::EXTENDED_LEN as u64))?;
        Inode::decode(nid, bytes, self.superblock.epoch).map_err(|(at, fault)| TreeError::Damaged {
            nid,
            offset: offset + at as u64,
            fault,
        })
    }

    /// See [`Tree::read_link`](super::Tree::read_link).
    pub fn read_link(&self, inode: &Inode) -> Result<&'a [u8], TreeError> {
        require(inode, FileKind::Symlink)?;
        let target = self.flat(inode)?;
        if target.is_empty() || target.len() > SYMLINK_MAX || target.contains(&0) {
            let offset = inode.nid.offset();
            return Err(TreeError::Damaged { nid: inode.nid, offset, fault: Fault::SymlinkTarget });
        }
        Ok(target)
    }

    /// Data that lies in the tree in one piece: a symlink's target, or a small file's content.
    pub fn flat(&self, inode: &Inode) -> Result<&'a [u8], TreeError> {
        match inode.layout {
            Layout::Plain { .. } if inode.size == 0 => Ok(&[]),
            Layout::Plain { start } => self.slice(inode.nid, u64::from(start) * BLOCK_SIZE, inode.size),
            Layout::Inline { .. } => self.slice(inode.nid, inode.tail_offset(), inode.size),
            Layout::None | Layout::Chunks { .. } => Ok(&[]),
        }
    }
}

/// Refuses another kind of file than the caller's question is about.
pub fn require(inode: &Inode, expected: FileKind) -> Result<(), TreeError> {
    if inode.kind == expected { Ok(()) } else { Err(TreeError::WrongKind { nid: inode.nid, expected }) }
}
