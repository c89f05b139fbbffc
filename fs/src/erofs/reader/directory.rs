//! Directories: lookup by halving, listing from any cookie.
//!
//! A cookie is the place of an entry, so no state lives between two calls: block number, then the entry's number in the
//! block in 9 bits, plus 1 so that 0 means the start. A block has at most 4096 / 12 = 341 entries.

use std::cmp::Ordering;

use super::image::{Image, require};
use super::{Fault, TreeError};
use crate::erofs::layout::dirent::{self, RawDirent};
use crate::erofs::layout::inode::{Inode, Layout};
use crate::erofs::layout::{BLOCK, BLOCK_SIZE, FileKind, NAME_MAX, Nid};

const INDEX_BITS: u32 = 9;
const _: () = assert!(BLOCK / dirent::LEN < 1 << INDEX_BITS);

/// An entry of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dirent<'a> {
    /// Its name.
    pub name: &'a [u8],
    /// The inode it names.
    pub nid: Nid,
    /// The type of that inode.
    pub kind: FileKind,
    /// Pass it to [`Tree::read_dir`](super::Tree::read_dir) to continue behind this entry.
    pub cookie: u64,
}

/// A block of a directory: all entries, then all names.
#[derive(Clone, Copy, Debug)]
pub struct DirBlock<'a> {
    nid: Nid,
    /// Byte offset in the image.
    pub offset: u64,
    pub bytes: &'a [u8],
    /// Number of entries.
    pub count: usize,
}

impl<'a> DirBlock<'a> {
    fn new(nid: Nid, offset: u64, bytes: &'a [u8]) -> Result<Self, TreeError> {
        let mut block = Self { nid, offset, bytes, count: 1 };
        let names_at = usize::from(block.raw(0)?.name_offset);
        block.count = names_at / dirent::LEN;
        if block.count == 0 || !names_at.is_multiple_of(dirent::LEN) || names_at >= bytes.len() {
            return Err(block.damaged(0, Fault::NameOffset));
        }
        Ok(block)
    }

    /// The entry as stored.
    pub fn raw(&self, index: usize) -> Result<RawDirent, TreeError> {
        let entry = self.bytes.get(index * dirent::LEN..).and_then(<[u8]>::first_chunk);
        entry.map(RawDirent::decode).ok_or_else(|| self.damaged(index, Fault::Outside))
    }

    /// The name of an entry.
    pub fn name(&self, index: usize) -> Result<&'a [u8], TreeError> {
        let start = usize::from(self.raw(index)?.name_offset);
        let is_last = index + 1 == self.count;
        let end = if is_last { self.bytes.len() } else { usize::from(self.raw(index + 1)?.name_offset) };
        if start < self.count * dirent::LEN {
            return Err(self.damaged(index, Fault::NameOffset));
        }
        let name = self.bytes.get(start..end).ok_or_else(|| self.damaged(index, Fault::NameOffset))?;
        // Only the last name of a block has padding behind it; more than the longest name need not be searched for it.
        let searched = &name[..name.len().min(NAME_MAX + 1)];
        let name = match searched.iter().position(|byte| *byte == 0) {
            Some(end) if is_last => &name[..end],
            Some(_) => return Err(self.damaged(index, Fault::Name)),
            None => name,
        };
        if name.is_empty() || name.len() > NAME_MAX || name.contains(&b'/') {
            return Err(self.damaged(index, Fault::Name));
        }
        Ok(name)
    }

    /// An entry with its name and a known type.
    pub fn dirent(&self, index: usize, cookie: u64) -> Result<Dirent<'a>, TreeError> {
        let raw = self.raw(index)?;
        if raw.reserved != 0 {
            return Err(self.damaged(index, Fault::Reserved));
        }
        let kind =
            FileKind::from_dirent_code(raw.code).ok_or_else(|| self.damaged(index, Fault::DirentType))?;
        Ok(Dirent { name: self.name(index)?, nid: raw.nid, kind, cookie })
    }

    /// A fault of an entry.
    pub fn damaged(&self, index: usize, fault: Fault) -> TreeError {
        TreeError::Damaged { nid: self.nid, offset: self.offset + (index * dirent::LEN) as u64, fault }
    }

    /// Finds the entry with this name by halving.
    fn find(&self, name: &[u8]) -> Result<Option<Nid>, TreeError> {
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low + (high - low) / 2;
            match self.name(middle)?.cmp(name) {
                Ordering::Less => low = middle + 1,
                Ordering::Greater => high = middle,
                Ordering::Equal => return Ok(Some(self.raw(middle)?.nid)),
            }
        }
        Ok(None)
    }
}

impl<'a> Image<'a> {
    /// How many blocks a directory has.
    pub fn dir_blocks(&self, dir: &Inode) -> u64 {
        dir.size.div_ceil(BLOCK_SIZE)
    }

    /// A block of a directory; `number` is below [`Image::dir_blocks`].
    pub fn dir_block(&self, dir: &Inode, number: u64) -> Result<DirBlock<'a>, TreeError> {
        let before = number.saturating_mul(BLOCK_SIZE);
        let len = dir.size.saturating_sub(before).min(BLOCK_SIZE);
        let offset = match dir.layout {
            Layout::Inline { .. } if len < BLOCK_SIZE => dir.tail_offset(),
            Layout::Plain { start } | Layout::Inline { start } => {
                (u64::from(start) * BLOCK_SIZE).saturating_add(before)
            }
            Layout::None | Layout::Chunks { .. } => {
                return Err(TreeError::WrongKind { nid: dir.nid, expected: FileKind::Directory });
            }
        };
        DirBlock::new(dir.nid, offset, self.slice(dir.nid, offset, len)?)
    }

    /// See [`Tree::lookup`](super::Tree::lookup).
    pub fn lookup(&self, dir: &Inode, name: &[u8]) -> Result<Option<Nid>, TreeError> {
        require(dir, FileKind::Directory)?;
        // The last block whose first name is not greater than the one sought.
        let (mut low, mut high) = (0, self.dir_blocks(dir));
        let mut candidate = None;
        while low < high {
            let middle = low + (high - low) / 2;
            let block = self.dir_block(dir, middle)?;
            if block.name(0)? <= name {
                candidate = Some(block);
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        candidate.map_or(Ok(None), |block| block.find(name))
    }
}

/// The entries of a directory, in the order of their names. Ends after the first error.
#[derive(Clone, Debug)]
pub struct ReadDir<'a> {
    image: Image<'a>,
    dir: Inode,
    number: u64,
    index: usize,
    block: Option<DirBlock<'a>>,
    failed: bool,
}

impl<'a> ReadDir<'a> {
    pub(super) fn new(image: Image<'a>, dir: &Inode, cookie: u64) -> Result<Self, TreeError> {
        require(dir, FileKind::Directory)?;
        let (number, index) = match cookie.checked_sub(1) {
            Some(last) => (last >> INDEX_BITS, (last & ((1 << INDEX_BITS) - 1)) as usize + 1),
            None => (0, 0),
        };
        Ok(Self { image, dir: *dir, number, index, block: None, failed: false })
    }

    /// The block at hand if an entry is left in it, else the next one; `None` at the end.
    fn current(&mut self) -> Result<Option<DirBlock<'a>>, TreeError> {
        loop {
            if self.number >= self.image.dir_blocks(&self.dir) {
                return Ok(None);
            }
            let block = match self.block {
                Some(block) => block,
                None => self.image.dir_block(&self.dir, self.number)?,
            };
            if self.index < block.count {
                self.block = Some(block);
                return Ok(Some(block));
            }
            self.block = None;
            self.number += 1;
            self.index = 0;
        }
    }
}

impl<'a> Iterator for ReadDir<'a> {
    type Item = Result<Dirent<'a>, TreeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let entry = self.current().and_then(|block| {
            let Some(block) = block else { return Ok(None) };
            let cookie = (self.number << INDEX_BITS | self.index as u64) + 1;
            block.dirent(self.index, cookie).map(Some)
        });
        self.index += 1;
        self.failed = entry.is_err();
        entry.transpose()
    }
}
