//! The block map: which part of which block holds a range of a data space.
//!
//! Two tables. The **block table** describes every data block (digest, plain length, stored length of each frame).
//! The **extents** of a space say, sorted and without overlap, where its bytes are; what no extent covers is zero
//! (padding and holes). Encoded as unsigned varints relative to the extent before, so that a change stays local and
//! zstd has little left to do: see `fs/FORMAT.md`.

mod decode;
mod encode;

use g8_cache::{BlockDesc, BlockId, Codec, MAX_STORED};

pub use decode::decode;
pub use encode::MapBuilder;

use crate::erofs::Device;

/// First bytes of an encoded map; the last one is its version.
pub const MAGIC: &[u8; 8] = b"G8FMAP\x00\x01";
/// Smallest frame: one page, since nobody reads less.
pub const MIN_FRAME: u32 = 4096;
/// Largest frame: a block of one frame.
pub const MAX_FRAME: u32 = MAX_STORED as u32;
/// Frames begin on page borders, so that reads do too.
pub const FRAME_STEP: u32 = 4096;

/// A range of a data space that lies in one block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// First byte, counted from the start of the space.
    pub start: u64,
    /// Length in bytes, at least 1.
    pub len: u32,
    /// Index of the block in the block table.
    pub block: u32,
    /// Where the range begins in the plain bytes of that block.
    pub offset: u32,
}

impl Extent {
    /// First byte behind the extent.
    pub fn end(&self) -> u64 {
        self.start + u64::from(self.len)
    }
}

/// One block of the table.
#[derive(Clone, Copy, Debug)]
struct Block {
    digest: [u8; 32],
    plain_len: u32,
    /// Index of its first frame in `frames`.
    first_frame: u32,
}

/// Where a part of a requested range comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Nothing is stored: the bytes are zero.
    Zero,
    /// `offset` bytes into the plain bytes of block number `block`.
    Block {
        /// Index in the block table.
        block: u32,
        /// Byte offset in the block's plain bytes.
        offset: u32,
    },
}

/// A piece of a requested range, `len` bytes from one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Where from.
    pub place: Place,
    /// How many bytes, at least 1.
    pub len: u64,
}

/// The decoded map of one flist.
#[derive(Debug)]
pub struct BlockMap {
    frame_len: u32,
    blocks: Vec<Block>,
    frames: Vec<u32>,
    small: Vec<Extent>,
    big: Vec<Extent>,
    stored_bytes: u64,
}

impl BlockMap {
    /// Plain bytes of every frame but the last of a block.
    pub fn frame_len(&self) -> u32 {
        self.frame_len
    }

    /// Number of data blocks.
    pub fn block_count(&self) -> usize {
        self.blocks.len()
    }

    /// Sum of the stored sizes of all blocks, in bytes.
    pub fn stored_bytes(&self) -> u64 {
        self.stored_bytes
    }

    /// Bytes of memory that the map takes.
    pub fn memory_bytes(&self) -> usize {
        size_of_val(&*self.blocks)
            + size_of_val(&*self.frames)
            + size_of_val(&*self.small)
            + size_of_val(&*self.big)
    }

    /// Id of block number `index`, which must be below [`BlockMap::block_count`].
    pub fn block_id(&self, index: u32) -> BlockId {
        BlockId::new(Codec::Raw, self.blocks[index as usize].digest)
    }

    /// What the cache needs to prove and decode block number `index`.
    pub fn block(&self, index: u32) -> BlockDesc<'_> {
        let block = &self.blocks[index as usize];
        let first = block.first_frame as usize;
        let count = block.plain_len.div_ceil(self.frame_len) as usize;
        let frames = &self.frames[first..first + count];
        BlockDesc::new(BlockId::new(Codec::Raw, block.digest), block.plain_len, self.frame_len, frames)
            .expect("the table was judged when it was decoded")
    }

    /// The extents of a space, sorted.
    pub fn extents(&self, device: Device) -> &[Extent] {
        match device {
            Device::Small => &self.small,
            Device::Big => &self.big,
        }
    }

    /// Where the bytes `address..address + len` of a space come from, in order, without gaps.
    pub fn parts(&self, device: Device, address: u64, len: u64) -> Parts<'_> {
        let extents = self.extents(device);
        let next = extents.partition_point(|e| e.end() <= address);
        Parts { extents: &extents[next..], at: address, end: address.saturating_add(len) }
    }
}

/// Iterator over the [`Part`]s of a range.
#[derive(Clone, Debug)]
pub struct Parts<'a> {
    extents: &'a [Extent],
    at: u64,
    end: u64,
}

impl Iterator for Parts<'_> {
    type Item = Part;

    fn next(&mut self) -> Option<Part> {
        if self.at >= self.end {
            return None;
        }
        let Some((extent, rest)) = self.extents.split_first() else {
            let len = self.end - self.at;
            self.at = self.end;
            return Some(Part { place: Place::Zero, len });
        };
        if extent.start > self.at {
            let len = extent.start.min(self.end) - self.at;
            self.at += len;
            return Some(Part { place: Place::Zero, len });
        }
        let skip = (self.at - extent.start) as u32;
        let len = extent.end().min(self.end) - self.at;
        self.at += len;
        self.extents = rest;
        Some(Part { place: Place::Block { block: extent.block, offset: extent.offset + skip }, len })
    }
}

#[cfg(test)]
mod tests;
