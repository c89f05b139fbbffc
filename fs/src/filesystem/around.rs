//! What lies around a block that is missing: who needs one block of a far source often needs its neighbours.
//!
//! A program that starts reads here and there, one thing after the other, and each costs it a round trip. Contents lie in tree
//! order, so what belongs together lies together.

use crate::erofs::Device;
use crate::format::BlockMap;

/// Extents that are looked at: many small files lie in one block.
const EXTENTS: usize = 4096;

/// The blocks around `address` with up to `budget` stored bytes, a quarter of them before it, without the one it lies in. The
/// nearest come first.
pub(super) fn blocks(map: &BlockMap, device: Device, address: u64, budget: u64) -> Vec<u32> {
    let extents = map.extents(device);
    let here = extents.partition_point(|extent| extent.end() <= address);
    let missing = extents.get(here).map(|extent| extent.block);
    let mut found = Vec::new();
    let mut left = budget;
    let after = extents[here..].iter().take(EXTENTS);
    let before = extents[..here].iter().rev().take(EXTENTS);
    for (side, reserve) in [
        (&mut after.map(|extent| extent.block) as &mut dyn Iterator<Item = u32>, budget / 4),
        (&mut before.map(|extent| extent.block), 0),
    ] {
        for block in side {
            if Some(block) == missing || found.contains(&block) {
                continue;
            }
            let len = u64::from(map.block(block).stored_len());
            if left < reserve + len {
                break;
            }
            left -= len;
            found.push(block);
        }
    }
    found
}
