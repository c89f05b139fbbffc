//! Reading a block map from hostile bytes.

use g8_cache::MAX_STORED;
use unsigned_varint::decode as varint;

use super::{Block, BlockMap, Extent, FRAME_STEP, MAGIC, MAX_FRAME, MIN_FRAME};
use crate::erofs::{BLOCK_SIZE, DeviceSizes};
use crate::format::FormatError;

/// Most extents that may begin in one 4 KiB page of a space. A run begins on a page and its pieces are longer, so a packer
/// needs two; more would only make a short read touch as many blocks as it has bytes.
const MAX_CROWD: u32 = 4;

/// Parses a map and judges it against the sizes of the spaces it fills.
///
/// Nothing is allocated before the input is long enough to hold it, every extent lies in its space and its block,
/// and the input ends with the last extent.
pub fn decode(bytes: &[u8], spaces: DeviceSizes) -> Result<BlockMap, FormatError> {
    let rest = bytes.strip_prefix(MAGIC).ok_or_else(|| bad("does not begin with the map's magic"))?;
    let mut input = Input { rest };
    let frame_len = input.u32("frame length", MIN_FRAME, MAX_FRAME)?;
    if frame_len % FRAME_STEP != 0 {
        return Err(bad(format!("frame length {frame_len} is not a multiple of {FRAME_STEP}")));
    }
    let (blocks, frames, stored_bytes) = block_table(&mut input, frame_len)?;
    let small = extents(&mut input, &blocks, u64::from(spaces.small_blocks) * BLOCK_SIZE)?;
    let big = extents(&mut input, &blocks, u64::from(spaces.big_blocks) * BLOCK_SIZE)?;
    if !input.rest.is_empty() {
        return Err(bad(format!("{} bytes follow the last extent", input.rest.len())));
    }
    Ok(BlockMap { frame_len, blocks, frames, small, big, stored_bytes })
}

fn block_table(input: &mut Input<'_>, frame_len: u32) -> Result<(Vec<Block>, Vec<u32>, u64), FormatError> {
    let count = input.count("block count", 34)?;
    let mut blocks = Vec::with_capacity(count);
    for _ in 0..count {
        let (digest, rest) = input.rest.split_first_chunk().ok_or_else(|| bad("ends in the digests"))?;
        input.rest = rest;
        blocks.push(Block { digest: *digest, plain_len: 0, first_frame: 0 });
    }
    let mut frame_count: u64 = 0;
    for block in &mut blocks {
        block.plain_len = input.u32("plain length of a block", 1, MAX_STORED as u32)?;
        block.first_frame = u32::try_from(frame_count).map_err(|_| bad("more than 2^32 frames"))?;
        frame_count += u64::from(block.plain_len.div_ceil(frame_len));
    }
    if frame_count > input.rest.len() as u64 {
        return Err(bad(format!("ends in the sizes of {frame_count} frames")));
    }
    let mut frames = Vec::with_capacity(frame_count as usize);
    let mut stored_bytes = 0;
    for block in &blocks {
        let mut plain_left = block.plain_len;
        while plain_left > 0 {
            let plain = plain_left.min(frame_len);
            let stored = input.u32("stored length of a frame", 1, plain)?;
            stored_bytes += u64::from(stored);
            frames.push(stored);
            plain_left -= plain;
        }
    }
    Ok((blocks, frames, stored_bytes))
}

fn extents(input: &mut Input<'_>, blocks: &[Block], space: u64) -> Result<Vec<Extent>, FormatError> {
    let count = input.count("extent count", 4)?;
    let mut list: Vec<Extent> = Vec::with_capacity(count);
    let mut last = Extent { start: 0, len: 0, block: 0, offset: 0 };
    let mut page = (0, 0);
    for n in 0..count {
        let fail = |reason: String| bad(format!("extent {n}: {reason}"));
        let gap = input.u64("gap before an extent")?;
        let len = input.u32("length of an extent", 1, MAX_STORED as u32)?;
        let start =
            last.end().checked_add(gap).filter(|s| s.checked_add(len.into()).is_some_and(|e| e <= space));
        let start = start.ok_or_else(|| fail(format!("ends beyond its space of {space} bytes")))?;
        page = if start / BLOCK_SIZE == page.0 { (page.0, page.1 + 1) } else { (start / BLOCK_SIZE, 1) };
        if page.1 > MAX_CROWD {
            return Err(fail(format!("more than {MAX_CROWD} extents begin in one page")));
        }
        let delta = unzigzag(input.u64("block of an extent")?);
        let block = i64::from(last.block)
            .checked_add(delta)
            .and_then(|b| u32::try_from(b).ok())
            .filter(|b| (*b as usize) < blocks.len())
            .ok_or_else(|| fail("names a block that is not in the table".into()))?;
        let offset = input.u64("offset of an extent")?;
        let offset = if delta == 0 {
            i64::from(last.offset + last.len)
                .checked_add(unzigzag(offset))
                .and_then(|o| u32::try_from(o).ok())
        } else {
            u32::try_from(offset).ok()
        };
        let plain_len = blocks[block as usize].plain_len;
        let offset = offset
            .filter(|o| o.checked_add(len).is_some_and(|end| end <= plain_len))
            .ok_or_else(|| fail(format!("lies outside the {plain_len} plain bytes of its block")))?;
        last = Extent { start, len, block, offset };
        list.push(last);
    }
    Ok(list)
}

struct Input<'a> {
    rest: &'a [u8],
}

impl Input<'_> {
    fn u64(&mut self, what: &str) -> Result<u64, FormatError> {
        let (value, rest) = varint::u64(self.rest).map_err(|e| bad(format!("{what}: {e}")))?;
        self.rest = rest;
        Ok(value)
    }

    fn u32(&mut self, what: &str, least: u32, most: u32) -> Result<u32, FormatError> {
        let value = self.u64(what)?;
        u32::try_from(value)
            .ok()
            .filter(|v| (least..=most).contains(v))
            .ok_or_else(|| bad(format!("{what} is {value}, not {least} to {most}")))
    }

    /// A number of items that each take at least `item` bytes of what is left.
    fn count(&mut self, what: &str, item: usize) -> Result<usize, FormatError> {
        let value = self.u64(what)?;
        let most = (self.rest.len() / item) as u64;
        if value > most || value > u64::from(u32::MAX) {
            return Err(bad(format!("{what} is {value}, the map has room for {most}")));
        }
        Ok(value as usize)
    }
}

fn bad(reason: impl Into<String>) -> FormatError {
    FormatError::field("block map", reason)
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}
