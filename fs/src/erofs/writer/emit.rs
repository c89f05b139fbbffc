//! Fills the image as planned. Whatever is not stored here stays zero, so padding needs no care.

use sha2::{Digest, Sha256};

use super::listing::{self, Listings};
use super::place::{Plan, Spot};
use super::xattr::Areas;
use super::{Content, Node, NodeKind};
use crate::erofs::layout::inode::{self, Inode, Layout};
use crate::erofs::layout::superblock::{self, Superblock};
use crate::erofs::layout::{BLOCK, DeviceSizes, Mtime, chunk, put};

/// What the passes before have found out.
pub struct Parts<'a> {
    pub nodes: &'a [Node],
    pub listings: Listings<'a>,
    pub links: Vec<u32>,
    pub xattrs: Areas,
    pub plan: Plan,
    pub epoch: Mtime,
    pub devices: DeviceSizes,
}

/// The finished image.
pub fn image(parts: &Parts<'_>) -> Vec<u8> {
    let plan = &parts.plan;
    let mut image = vec![0; plan.blocks as usize * BLOCK];
    for index in 0..parts.nodes.len() {
        let data = head(parts, index, &mut image);
        body(parts, index, data, &mut image);
    }
    put(&mut image, plan.xattr_block as usize * BLOCK, &parts.xattrs.shared);
    let superblock = Superblock {
        compat: Superblock::COMPAT,
        root: plan.spots[0].nid,
        inodes: parts.nodes.len() as u64,
        epoch: parts.epoch,
        blocks: plan.blocks,
        xattr_block: plan.xattr_block,
        devices: parts.devices,
    };
    superblock.encode(&mut image);
    // The uuid names the content; the checksum covers the uuid, so it comes last.
    let digest: [u8; 32] = Sha256::digest(&image).into();
    let (uuid, _) = digest.split_first_chunk().expect("32 bytes begin with 16");
    superblock::store_uuid(&mut image, *uuid);
    superblock::store_checksum(&mut image);
    image
}

/// Stores inode and xattrs; returns where they end.
fn head(parts: &Parts<'_>, index: usize, image: &mut [u8]) -> usize {
    let (node, spot) = (&parts.nodes[index], parts.plan.spots[index]);
    let xattrs = parts.xattrs.of(index);
    let inode = Inode {
        nid: spot.nid,
        mode: u32::from(spot.kind.mode_bits() | node.permissions),
        uid: node.uid,
        gid: node.gid,
        mtime: node.mtime,
        nlink: parts.links[index],
        size: spot.size,
        rdev: node.kind.rdev(),
        kind: spot.kind,
        extended: spot.extended,
        serial: index as u32 + 1,
        xattr_len: xattrs.len() as u32,
        layout: spot.layout,
    };
    let at = spot.nid.offset() as usize;
    inode.encode(&mut image[at..]);
    let xattr_at = at + inode::len(spot.extended);
    put(image, xattr_at, xattrs);
    xattr_at + xattrs.len()
}

/// Stores what lies behind the head, which ends at `tail`, and in blocks of its own.
fn body(parts: &Parts<'_>, index: usize, tail: usize, image: &mut [u8]) {
    let spot = &parts.plan.spots[index];
    match &parts.nodes[index].kind {
        NodeKind::Directory { .. } => directory(parts, index, tail, image),
        NodeKind::Symlink { target } => put(image, flat_at(spot, tail), target),
        NodeKind::Regular(Content::Inline(bytes)) => put(image, flat_at(spot, tail), bytes),
        NodeKind::Regular(Content::Chunked { chunks, .. }) => {
            let table = chunk::table_offset(tail as u64) as usize;
            let entries = image[table..].chunks_exact_mut(chunk::ENTRY_LEN);
            for (entry, chunk) in entries.zip(chunks) {
                chunk::encode(*chunk, entry);
            }
        }
        NodeKind::CharDevice { .. } | NodeKind::BlockDevice { .. } | NodeKind::Fifo | NodeKind::Socket => {}
    }
}

fn directory(parts: &Parts<'_>, index: usize, tail: usize, image: &mut [u8]) {
    let spots = &parts.plan.spots;
    let full = start_block(&spots[index]).map_or(0, |start| start as usize * BLOCK);
    let size = spots[index].size as usize;
    let last = (size - 1) / BLOCK;
    for (number, (entries, used)) in listing::blocks(parts.listings.of(index)).enumerate() {
        let is_inline = number == last && matches!(spots[index].layout, Layout::Inline { .. });
        let at = if is_inline { tail } else { full + number * BLOCK };
        listing::encode(entries, &mut image[at..at + used], |node| {
            let spot = &spots[node.index()];
            (spot.nid, spot.kind)
        });
    }
}

/// Where data of less than a block lies.
fn flat_at(spot: &Spot, tail: usize) -> usize {
    match spot.layout {
        Layout::Plain { start } if spot.size > 0 => start as usize * BLOCK,
        Layout::Plain { .. } | Layout::Inline { .. } | Layout::None | Layout::Chunks { .. } => tail,
    }
}

fn start_block(spot: &Spot) -> Option<u32> {
    match spot.layout {
        Layout::Plain { start } | Layout::Inline { start } => Some(start),
        Layout::None | Layout::Chunks { .. } => None,
    }
}
