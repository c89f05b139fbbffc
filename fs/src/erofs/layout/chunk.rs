//! Chunk tables: 8 bytes for each chunk of a regular file say where in the data devices it lies.
//!
//! A chunk is at most 8 TiB, so nearly every file needs one entry. Only a chunk's last part, at the end of the file, is
//! shorter than the others.

use crate::erofs::fault::Fault;
use crate::erofs::layout::{BLOCK_SIZE, Device, put, u16_at, u32_at};

/// Bytes of a table entry, and its alignment.
pub const ENTRY_LEN: usize = 8;
/// The start block of a chunk that is a hole.
const HOLE: u32 = u32::MAX;
/// log2 of the smallest and of the largest chunk in bytes.
pub const BITS: std::ops::RangeInclusive<u8> = 12..=43;

/// Format bit: entries of 8 bytes instead of 4.
const FORMAT_INDEXES: u32 = 1 << 5;
const FORMAT_BITS: u32 = (1 << 5) - 1;

const _: () =
    assert!(1 << *BITS.start() == BLOCK_SIZE && (*BITS.end() - *BITS.start()) as u32 == FORMAT_BITS);

/// The place of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Chunk {
    /// The device it lies in.
    pub device: Device,
    /// Its first 4 KiB block there.
    pub block: u32,
}

/// The byte offset of the table of an inode whose xattrs end at `end`.
pub fn table_offset(end: u64) -> u64 {
    // Saturates for numbers that no image reaches; the bounds check refuses them.
    end.saturating_add(ENTRY_LEN as u64 - 1) / ENTRY_LEN as u64 * ENTRY_LEN as u64
}

/// How many chunks a file has.
pub fn count(size: u64, bits: u8) -> u64 {
    size.div_ceil(1 << bits)
}

/// How many blocks chunk `index` of a file takes; the last one ends with the file.
pub fn blocks(size: u64, bits: u8, index: u64) -> u64 {
    let start = index.saturating_mul(1 << bits);
    size.saturating_sub(start).min(1 << bits).div_ceil(BLOCK_SIZE)
}

/// The inode's union field for a chunk size.
pub fn encode_format(bits: u8) -> u32 {
    u32::from(bits - BITS.start()) | FORMAT_INDEXES
}

/// log2 of the chunk size that the inode's union field tells.
pub fn decode_format(union: u32) -> Option<u8> {
    (union & !FORMAT_BITS == FORMAT_INDEXES).then(|| (union & FORMAT_BITS) as u8 + BITS.start())
}

/// Stores an entry; `None` is a hole.
pub fn encode(chunk: Option<Chunk>, out: &mut [u8]) {
    // The first two bytes are the high part of the block number, which only the 48-bit layout uses.
    put(out, 2, &chunk.map_or(0, |chunk| chunk.device.id()).to_le_bytes());
    put(out, 4, &chunk.map_or(HOLE, |chunk| chunk.block).to_le_bytes());
}

/// Reads an entry; `None` is a hole.
///
/// # Errors
/// The broken rule.
pub fn decode(entry: &[u8; ENTRY_LEN]) -> Result<Option<Chunk>, Fault> {
    let (high, device, block) = (u16_at(entry, 0), u16_at(entry, 2), u32_at(entry, 4));
    match (high, device, block) {
        (0, 0, HOLE) => Ok(None),
        (0, _, HOLE) => Err(Fault::ChunkDevice),
        (0, _, _) => match Device::from_id(device) {
            Some(device) => Ok(Some(Chunk { device, block })),
            None => Err(Fault::ChunkDevice),
        },
        _ => Err(Fault::Reserved),
    }
}
