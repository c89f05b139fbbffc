//! Where contents lie in the two data spaces.
//!
//! The spaces are virtual: what lies between two runs costs nothing. Runs are therefore laid with gaps, so that a
//! file that grows moves as little as possible: `small` starts a new 16 KiB line with every directory and a new
//! 16 MiB line with every directory of the root, and `big` aligns every run to between a sixteenth and an eighth of
//! its size, and at least to 64 KiB.

use std::ops::Range;

use crate::erofs::{BLOCK_SIZE, Chunk, Content, Device, DeviceSizes};

/// Contents of at least this size go to `big`.
pub(super) const BIG_FROM: u64 = 1 << 20;
/// 8 TiB in one chunk: nearly every file needs just one index entry.
const WHOLE_FILE_BITS: u8 = 43;
/// Most index entries of a sparse file, below 8 PiB.
const MAX_SPARSE_CHUNKS: u64 = 1024;
const DIRECTORY_LINE: u64 = 16 * 1024 / BLOCK_SIZE;
const TOP_LINE: u64 = 16 * 1024 * 1024 / BLOCK_SIZE;
/// Smallest alignment in `big`, in blocks.
const BIG_LINE: u64 = 64 * 1024 / BLOCK_SIZE;
/// Blocks of a device: the number behind the last one means "hole".
const MAX_BLOCKS: u64 = u32::MAX as u64;

/// A run of a space given to one file content.
#[derive(Clone, Debug)]
pub(super) struct Run {
    pub device: Device,
    pub chunk_bits: u8,
    pub size: u64,
    /// First block of each chunk in the space; holes have none.
    pub chunks: Vec<Option<u32>>,
}

impl Run {
    /// Address in the space of byte `at` of the file, which must not lie in a hole of the chunk table.
    pub fn address(&self, at: u64) -> u64 {
        let block = self.chunks[(at >> self.chunk_bits) as usize].expect("data does not lie in a hole");
        u64::from(block) * BLOCK_SIZE + (at & ((1 << self.chunk_bits) - 1))
    }

    pub fn content(&self) -> Content {
        let chunks =
            self.chunks.iter().map(|c| c.map(|block| Chunk { device: self.device, block })).collect();
        Content::Chunked { size: self.size, chunk_bits: self.chunk_bits, chunks }
    }
}

/// A data space cannot hold one more file.
#[derive(Debug, thiserror::Error)]
#[error("its contents do not fit into the 16 TiB of a data space any more")]
pub(super) struct SpaceFull;

/// Hands out runs, in tree order.
#[derive(Debug, Default)]
pub(super) struct Spaces {
    /// Next free block of each space.
    small: u64,
    big: u64,
    /// Directory and entry of the root that the last small run belongs to.
    last: Option<(u32, u32)>,
}

impl Spaces {
    /// A run for a file of `size` > 0 bytes with these holes, in directory `parent` below the root's entry `top`.
    pub fn place(
        &mut self,
        size: u64,
        holes: &[Range<u64>],
        parent: u32,
        top: u32,
    ) -> Result<Run, SpaceFull> {
        let (chunk_bits, live) = live_chunks(size, holes);
        let chunk_blocks = (1u64 << chunk_bits) / BLOCK_SIZE;
        let count = live.iter().filter(|l| **l).count() as u64;
        let mut blocks = count * chunk_blocks;
        if live.last() == Some(&true) {
            blocks -= chunk_blocks - (size - ((live.len() as u64 - 1) << chunk_bits)).div_ceil(BLOCK_SIZE);
        }
        let (device, mut at) = self.allocate(size, blocks, parent, top)?;
        let chunks = live
            .into_iter()
            .map(|live| {
                let block = live.then_some(at as u32);
                at += if live { chunk_blocks } else { 0 };
                block
            })
            .collect();
        Ok(Run { device, chunk_bits, size, chunks })
    }

    fn allocate(
        &mut self,
        size: u64,
        blocks: u64,
        parent: u32,
        top: u32,
    ) -> Result<(Device, u64), SpaceFull> {
        let (device, next) = if size >= BIG_FROM {
            let line = BIG_LINE.max(blocks.max(1).ilog2().checked_sub(3).map_or(1, |bits| 1 << bits));
            self.big = self.big.next_multiple_of(line);
            (Device::Big, &mut self.big)
        } else {
            let line = match self.last.replace((parent, top)) {
                Some((_, last_top)) if last_top != top => TOP_LINE,
                Some((last_parent, _)) if last_parent != parent => DIRECTORY_LINE,
                _ => 1,
            };
            self.small = self.small.next_multiple_of(line);
            (Device::Small, &mut self.small)
        };
        let at = *next;
        *next += blocks;
        if *next > MAX_BLOCKS {
            return Err(SpaceFull);
        }
        Ok((device, at))
    }

    pub fn sizes(&self) -> DeviceSizes {
        DeviceSizes { small_blocks: self.small as u32, big_blocks: self.big as u32 }
    }
}

/// Chunk size for a file and which of its chunks hold data: one chunk for everything unless some would be all hole.
fn live_chunks(size: u64, holes: &[Range<u64>]) -> (u8, Vec<bool>) {
    let whole = |bits: u8| vec![true; size.div_ceil(1 << bits) as usize];
    if holes.is_empty() {
        return (WHOLE_FILE_BITS, whole(WHOLE_FILE_BITS));
    }
    let mut bits = BLOCK_SIZE.ilog2() as u8;
    while size.div_ceil(1 << bits) > MAX_SPARSE_CHUNKS && bits < WHOLE_FILE_BITS {
        bits += 1;
    }
    let mut live = whole(bits);
    for hole in holes {
        let first = hole.start.div_ceil(1 << bits);
        let end = if hole.end == size { live.len() as u64 } else { hole.end >> bits };
        for chunk in first..end {
            live[chunk as usize] = false;
        }
    }
    if live.iter().all(|l| *l) { (WHOLE_FILE_BITS, whole(WHOLE_FILE_BITS)) } else { (bits, live) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dense_file_is_one_chunk_and_a_sparse_one_names_its_holes() {
        let mut spaces = Spaces::default();
        let dense = spaces.place(5000, &[], 1, 1).unwrap();
        assert_eq!((dense.chunk_bits, dense.chunks.as_slice()), (43, &[Some(0)][..]));
        let size = 5 << 30;
        let sparse = spaces.place(size, &[65536..(1 << 30), (2 << 30)..size], 1, 1).unwrap();
        assert_eq!(sparse.device, Device::Big);
        assert!(sparse.chunks.len() <= 1024);
        assert_eq!(sparse.chunks.iter().flatten().count() as u64, 1 + (1 << 30 >> sparse.chunk_bits));
        assert_eq!(sparse.address(1 << 30), sparse.address(0) + (1 << sparse.chunk_bits));
    }

    #[test]
    fn a_file_of_holes_alone_takes_no_room() {
        let mut spaces = Spaces::default();
        let run = spaces.place(70_000, std::slice::from_ref(&(0..70_000)), 1, 1).unwrap();
        assert!(run.chunks.iter().all(Option::is_none));
        assert_eq!(spaces.sizes().small_blocks, 0);
    }

    #[test]
    fn growth_moves_only_what_follows_in_the_same_directory() {
        let place = |first: u64| {
            let mut spaces = Spaces::default();
            spaces.place(first, &[], 1, 1).unwrap();
            let neighbour = spaces.place(10, &[], 1, 1).unwrap().chunks[0];
            (neighbour, spaces.place(10, &[], 2, 1).unwrap().chunks[0])
        };
        let (near, far) = place(4096);
        let (near_after, far_after) = place(8192);
        assert_ne!(near, near_after);
        assert_eq!(far, far_after);
    }
}
