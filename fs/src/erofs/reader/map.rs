//! Where the bytes of a regular file lie.

use super::image::{Image, require};
use super::{Fault, TreeError};
use crate::erofs::layout::chunk::{self, Chunk};
use crate::erofs::layout::inode::{Inode, Layout};
use crate::erofs::layout::{BLOCK_SIZE, Device, FileKind};

/// A contiguous part of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping<'a> {
    /// Where its first byte lies.
    pub place: Place<'a>,
    /// How many bytes lie there contiguously, at most to the end of the file; never 0.
    pub len: u64,
}

impl Mapping<'_> {
    /// Most chunks that one mapping joins. The next mapping may go on where this one ends.
    pub const JOIN_MAX: u64 = 1024;
}

/// Where bytes of a file lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place<'a> {
    /// Nowhere; they read as zeros.
    Hole,
    /// In the tree: these are they.
    Inline(&'a [u8]),
    /// In a data device.
    Device {
        /// Which one.
        device: Device,
        /// Byte offset there.
        address: u64,
    },
}

impl<'a> Image<'a> {
    /// See [`Tree::map`](super::Tree::map).
    pub fn map(&self, inode: &Inode, offset: u64) -> Result<Mapping<'a>, TreeError> {
        require(inode, FileKind::Regular)?;
        let beyond = TreeError::BeyondEnd { nid: inode.nid, size: inode.size, offset };
        if offset >= inode.size {
            return Err(beyond);
        }
        let Layout::Chunks { bits } = inode.layout else {
            // A caller may have changed the public size, so the slice judges again.
            let rest = usize::try_from(offset).ok().and_then(|offset| self.flat(inode).ok()?.get(offset..));
            return match rest {
                Some(rest) => Ok(Mapping { place: Place::Inline(rest), len: rest.len() as u64 }),
                None => self.flat(inode).and(Err(beyond)),
            };
        };
        let first = offset >> bits;
        let inside = offset & ((1 << bits) - 1);
        let start = self.chunk(inode, bits, first)?;
        let last = chunk::count(inode.size, bits).min(first.saturating_add(Mapping::JOIN_MAX));
        let mut end = first + 1;
        while end < last && follows(start, self.chunk(inode, bits, end)?, bits, end - first) {
            end += 1;
        }
        let end = u128::from(end) << bits;
        let len = (end.min(inode.size.into()) - u128::from(offset)) as u64;
        let place = match start {
            None => Place::Hole,
            Some(Chunk { device, block }) => {
                Place::Device { device, address: u64::from(block) * BLOCK_SIZE + inside }
            }
        };
        Ok(Mapping { place, len })
    }

    /// The place of a chunk of a regular file with a chunk table; refuses one that leaves its device.
    pub fn chunk(&self, inode: &Inode, bits: u8, index: u64) -> Result<Option<Chunk>, TreeError> {
        let offset = inode.table_offset().saturating_add(index.saturating_mul(chunk::ENTRY_LEN as u64));
        let damaged = |fault| TreeError::Damaged { nid: inode.nid, offset, fault };
        let found = chunk::decode(self.array(inode.nid, offset)?).map_err(damaged)?;
        if let Some(Chunk { device, block }) = found {
            let end = u64::from(block).saturating_add(chunk::blocks(inode.size, bits, index));
            if end > self.superblock.devices.blocks(device).into() {
                return Err(damaged(Fault::ChunkOutside));
            }
        }
        Ok(found)
    }
}

/// Whether the chunk `distance` behind `start` goes on where the ones between end, as parts of one run or of one hole.
fn follows(start: Option<Chunk>, next: Option<Chunk>, bits: u8, distance: u64) -> bool {
    match (start, next) {
        (None, None) => true,
        (Some(start), Some(next)) => {
            let ahead = distance.saturating_mul((1 << bits) / BLOCK_SIZE);
            start.device == next.device
                && u64::from(start.block).saturating_add(ahead) == u64::from(next.block)
        }
        (None, Some(_)) | (Some(_), None) => false,
    }
}
