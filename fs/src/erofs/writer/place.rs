//! Gives every inode, directory block and tail its place.
//!
//! In this order: superblock and device table; inodes with their xattrs and tails or chunk tables; blocks of directories
//! and long symlinks; shared xattrs. The root comes first, so its 16-bit number always suffices.

use super::listing::{self, Listings};
use super::xattr::Areas;
use super::{Content, Node, NodeId, NodeKind, WriteError};
use crate::erofs::layout::inode::{self, Inode, Layout};
use crate::erofs::layout::{BLOCK_SIZE, FileKind, INODE_SLOT, Mtime, Nid, chunk, superblock};

/// Directories keep their last block behind the inode up to this size in bytes: larger ones would waste more by not
/// crossing a block border than they save.
const DIRECTORY_TAIL_MAX: u64 = 2048;

/// The place of a node.
#[derive(Clone, Copy)]
pub struct Spot {
    pub nid: Nid,
    pub kind: FileKind,
    pub extended: bool,
    pub layout: Layout,
    /// Bytes of content, dirents or target.
    pub size: u64,
    /// Blocks it takes in the tree, besides its inode.
    blocks: u64,
}

/// The place of everything.
pub struct Plan {
    pub spots: Vec<Spot>,
    /// First block of the shared xattrs; the end of the image when there are none.
    pub xattr_block: u32,
    /// Blocks of the image.
    pub blocks: u32,
}

impl Plan {
    /// Places all nodes.
    pub fn new(
        nodes: &[Node],
        listings: &Listings<'_>,
        links: &[u32],
        xattrs: &Areas,
        epoch: Mtime,
    ) -> Result<Self, WriteError> {
        let mut at = superblock::END as u64;
        let mut spots = Vec::with_capacity(nodes.len());
        for (id, node) in (0..).map(NodeId).zip(nodes) {
            let (kind, size) = kind_and_size(id, node, listings);
            let links = links[id.index()];
            let extended = !Inode::fits_compact(size, links, node.uid, node.gid, node.mtime == epoch);
            let head = inode::len(extended) as u64 + u64::from(xattrs.len_of(id));
            at = at.next_multiple_of(INODE_SLOT);
            let mut spot = Spot { nid: Nid(0), kind, extended, layout: Layout::None, size, blocks: 0 };
            at = place(at, head, node, &mut spot);
            spots.push(spot);
        }
        let mut next_block = at.div_ceil(BLOCK_SIZE);
        let data_blocks: u64 = spots.iter().map(|spot| spot.blocks).sum();
        let xattr_block = next_block + data_blocks;
        let blocks = xattr_block + (xattrs.shared.len() as u64).div_ceil(BLOCK_SIZE);
        let Ok(image_blocks) = u32::try_from(blocks) else {
            return Err(WriteError::TooLarge { blocks });
        };
        for spot in spots.iter_mut().filter(|spot| spot.blocks > 0) {
            if let Layout::Plain { start } | Layout::Inline { start } = &mut spot.layout {
                // Below `blocks`, which fits.
                *start = next_block as u32;
            }
            next_block += spot.blocks;
        }
        Ok(Self { spots, xattr_block: xattr_block as u32, blocks: image_blocks })
    }
}

fn kind_and_size(id: NodeId, node: &Node, listings: &Listings<'_>) -> (FileKind, u64) {
    match &node.kind {
        NodeKind::Directory { .. } => (FileKind::Directory, listing::size(listings.of(id.index()))),
        NodeKind::Symlink { target } => (FileKind::Symlink, target.len() as u64),
        NodeKind::Regular(Content::Inline(bytes)) => (FileKind::Regular, bytes.len() as u64),
        NodeKind::Regular(Content::Chunked { size, .. }) => (FileKind::Regular, *size),
        NodeKind::CharDevice { .. } => (FileKind::CharDevice, 0),
        NodeKind::BlockDevice { .. } => (FileKind::BlockDevice, 0),
        NodeKind::Fifo => (FileKind::Fifo, 0),
        NodeKind::Socket => (FileKind::Socket, 0),
    }
}

/// Places a node at `at` or soon behind, and returns where it ends. `head` is the bytes of inode and xattrs.
fn place(at: u64, head: u64, node: &Node, spot: &mut Spot) -> u64 {
    spot.nid = Nid(at / INODE_SLOT);
    let tail_max = match &node.kind {
        NodeKind::Directory { .. } => DIRECTORY_TAIL_MAX,
        NodeKind::Symlink { .. } | NodeKind::Regular(Content::Inline(_)) => BLOCK_SIZE,
        NodeKind::Regular(Content::Chunked { chunk_bits, chunks, .. }) => {
            spot.layout = Layout::Chunks { bits: *chunk_bits };
            return chunk::table_offset(at + head) + (chunks.len() * chunk::ENTRY_LEN) as u64;
        }
        NodeKind::CharDevice { .. } | NodeKind::BlockDevice { .. } | NodeKind::Fifo | NodeKind::Socket => {
            return at + head;
        }
    };
    let tail = spot.size % BLOCK_SIZE;
    // Inode, xattrs and tail share one block: a tail must not cross a border, and older kernels also refuse a symlink
    // whose target lies in another block than its inode.
    if tail == 0 || tail > tail_max || head + tail > BLOCK_SIZE {
        spot.layout = Layout::Plain { start: 0 };
        spot.blocks = spot.size.div_ceil(BLOCK_SIZE);
        return at + head;
    }
    let crosses = at % BLOCK_SIZE + head + tail > BLOCK_SIZE;
    let at = if crosses { at.next_multiple_of(BLOCK_SIZE) } else { at };
    spot.nid = Nid(at / INODE_SLOT);
    spot.layout = Layout::Inline { start: 0 };
    spot.blocks = spot.size / BLOCK_SIZE;
    at + head + tail
}
