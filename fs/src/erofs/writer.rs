//! Writes a tree: check, sort, plan every byte's place, then fill a buffer of exactly that size.
//!
//! The image follows from the nodes and their order alone: same nodes, same bytes. Inodes stand in the order of the
//! nodes, so the caller chooses locality (best: a directory, all its children, then the subtrees). The work is linear in
//! the nodes, beyond the sorting of each directory and of the shared xattrs.

mod check;
mod emit;
mod error;
mod listing;
mod place;
mod xattr;

use std::collections::HashMap;
use std::fmt;

use crate::erofs::layout::{DeviceSizes, Mtime, Rdev};

pub use crate::erofs::layout::chunk::Chunk;
pub use error::{WriteError, XattrError};
pub use xattr::check_xattrs;

/// The index of a node in the slice that [`write()`] gets; 0 is the root directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u32);

impl NodeId {
    /// The root directory.
    pub const ROOT: Self = Self(0);

    fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An extended attribute.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Xattr {
    /// The full name, for example `user.x`.
    pub name: Vec<u8>,
    /// What `getxattr` returns.
    pub value: Vec<u8>,
}

/// A file of any kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Permission bits, `0o7777`.
    pub permissions: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time.
    pub mtime: Mtime,
    /// Extended attributes in any order.
    pub xattrs: Vec<Xattr>,
    /// Type and content.
    pub kind: NodeKind,
}

/// Type and content of a node. Link counts are computed from the names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeKind {
    /// A directory. Exactly one directory names it; none names the root.
    Directory {
        /// The directory that names it; the root's is the root.
        parent: NodeId,
        /// Names and what they name, in any order, without `.` and `..`.
        entries: Vec<(Vec<u8>, NodeId)>,
    },
    /// A symbolic link.
    Symlink {
        /// Its target: 1 to 4095 bytes without NUL.
        target: Vec<u8>,
    },
    /// A regular file.
    Regular(Content),
    /// A character device.
    CharDevice {
        /// Major number, 12 bits.
        major: u32,
        /// Minor number, 20 bits.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Major number, 12 bits.
        major: u32,
        /// Minor number, 20 bits.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
    /// A unix socket.
    Socket,
}

impl NodeKind {
    fn rdev(&self) -> Rdev {
        match *self {
            Self::CharDevice { major, minor } | Self::BlockDevice { major, minor } => Rdev { major, minor },
            Self::Directory { .. } | Self::Symlink { .. } | Self::Regular(_) | Self::Fifo | Self::Socket => {
                Rdev::default()
            }
        }
    }
}

/// The content of a regular file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// In the tree itself: at most [`INLINE_MAX`](crate::erofs::INLINE_MAX) bytes. The empty file is of this form.
    Inline(Vec<u8>),
    /// In the data devices.
    Chunked {
        /// Bytes of the file, 1 to 2^63 - 1.
        size: u64,
        /// log2 of the chunk size in bytes, 12 to 43.
        chunk_bits: u8,
        /// The place of each chunk, `None` for a hole; `size` / chunk size of them, rounded up.
        chunks: Vec<Option<Chunk>>,
    },
}

/// Writes the tree as an image of whole blocks.
///
/// # Errors
/// [`WriteError`] names the first node, in order, that has no place in a tree.
pub fn write(nodes: &[Node], devices: DeviceSizes) -> Result<Vec<u8>, WriteError> {
    check::nodes(nodes, devices)?;
    let listings = listing::Listings::new(nodes)?;
    let links = check::links(nodes, &listings)?;
    let xattrs = xattr::Areas::new(nodes)?;
    let epoch = epoch(nodes);
    let plan = place::Plan::new(nodes, &listings, &links, &xattrs, epoch)?;
    Ok(emit::image(&emit::Parts { nodes, listings, links, xattrs, plan, epoch, devices }))
}

/// The most frequent time, the later one of equals: whoever has it takes half an inode.
fn epoch(nodes: &[Node]) -> Mtime {
    let mut counts: HashMap<Mtime, u32> = HashMap::new();
    for node in nodes {
        *counts.entry(node.mtime).or_default() += 1;
    }
    counts
        .into_iter()
        .max_by_key(|&(mtime, count)| (count, mtime))
        .map(|(mtime, _)| mtime)
        .unwrap_or_default()
}

/// One run of items for each node, in one allocation for all.
struct PerNode<T> {
    items: Vec<T>,
    /// Where the run of each node ends; it starts where the one before ends.
    ends: Vec<usize>,
}

impl<T> PerNode<T> {
    fn with_capacity(nodes: usize) -> Self {
        Self { items: Vec::new(), ends: Vec::with_capacity(nodes) }
    }

    /// Ends the run of the next node.
    fn close(&mut self) {
        self.ends.push(self.items.len());
    }

    fn of(&self, node: usize) -> &[T] {
        let start = node.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.items[start..self.ends[node]]
    }
}
