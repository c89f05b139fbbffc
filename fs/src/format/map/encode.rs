//! Writing a block map.

use g8_cache::EncodedBlock;
use unsigned_varint::encode as varint;

use super::{Extent, MAGIC};
use crate::erofs::Device;

/// What the block table says about a block.
#[derive(Debug)]
struct Encoded {
    digest: [u8; 32],
    plain_len: u32,
    frames: Box<[u32]>,
}

/// Collects blocks and extents while a tree is packed, in any order, and writes them in the one canonical order.
#[derive(Debug, Default)]
pub struct MapBuilder {
    frame_len: u32,
    blocks: Vec<Option<Encoded>>,
    small: Vec<Extent>,
    big: Vec<Extent>,
}

impl MapBuilder {
    /// A map of blocks whose frames hold `frame_len` plain bytes.
    pub fn new(frame_len: u32) -> Self {
        MapBuilder { frame_len, ..MapBuilder::default() }
    }

    /// Reserves the next number of the block table.
    pub fn add_block(&mut self) -> u32 {
        self.blocks.push(None);
        self.blocks.len() as u32 - 1
    }

    /// Says what became of block `index` once it is encoded.
    pub fn set_block(&mut self, index: u32, block: &EncodedBlock) {
        self.blocks[index as usize] = Some(Encoded {
            digest: *block.id.digest(),
            plain_len: block.plain_len,
            frames: block.frames.clone().into_boxed_slice(),
        });
    }

    /// Number of blocks so far.
    pub fn block_count(&self) -> usize {
        self.blocks.len()
    }

    /// Adds an extent; it is joined with the one added before where both continue each other.
    pub fn add_extent(&mut self, device: Device, extent: Extent) {
        let list = match device {
            Device::Small => &mut self.small,
            Device::Big => &mut self.big,
        };
        if let Some(last) = list.last_mut()
            && last.end() == extent.start
            && last.block == extent.block
            && last.offset + last.len == extent.offset
        {
            last.len += extent.len;
            return;
        }
        list.push(extent);
    }

    /// The encoded map. Panics when a block was added but never set, which is a bug of the packer.
    pub fn finish(mut self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        put(&mut out, u64::from(self.frame_len));
        put(&mut out, self.blocks.len() as u64);
        let blocks: Vec<_> =
            self.blocks.into_iter().map(|b| b.expect("every block handed out was encoded")).collect();
        for block in &blocks {
            out.extend_from_slice(&block.digest);
        }
        for block in &blocks {
            put(&mut out, u64::from(block.plain_len));
        }
        for block in &blocks {
            for stored in &block.frames {
                put(&mut out, u64::from(*stored));
            }
        }
        for list in [&mut self.small, &mut self.big] {
            list.sort_unstable_by_key(|e| e.start);
            put_extents(&mut out, list);
        }
        out
    }
}

fn put_extents(out: &mut Vec<u8>, extents: &[Extent]) {
    put(out, extents.len() as u64);
    let mut last = Extent { start: 0, len: 0, block: 0, offset: 0 };
    for extent in extents {
        put(out, extent.start - last.end());
        put(out, u64::from(extent.len));
        put(out, zigzag(i64::from(extent.block) - i64::from(last.block)));
        if extent.block == last.block {
            put(out, zigzag(i64::from(extent.offset) - i64::from(last.offset + last.len)));
        } else {
            put(out, u64::from(extent.offset));
        }
        last = *extent;
    }
}

fn put(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(varint::u64(value, &mut varint::u64_buffer()));
}

/// Small negative numbers become small varints: 0, -1, 1, -2, ... to 0, 1, 2, 3, ...
fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}
