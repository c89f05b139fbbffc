//! Why a list of nodes is not a tree that EROFS can hold.

use thiserror::Error;

use super::NodeId;
use crate::erofs::layout::{INLINE_MAX, SYMLINK_MAX, chunk, xattr};

/// Why [`write`](super::write) refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum WriteError {
    /// The list is empty or starts with something else than a directory whose parent is itself.
    #[error("node 0 is not a root directory")]
    NoRoot,
    /// More nodes than [`NodeId`] counts.
    #[error("{nodes} nodes are more than a tree can hold")]
    TooManyNodes {
        /// How many there are.
        nodes: usize,
    },
    /// Bits outside `0o7777`.
    #[error("node {node}: permissions {permissions:#o} have bits outside 0o7777")]
    Permissions {
        /// The node.
        node: NodeId,
        /// Its permissions.
        permissions: u16,
    },
    /// Nanoseconds of a whole second or more.
    #[error("node {node}: {nanos} nanoseconds are not below a second")]
    Nanoseconds {
        /// The node.
        node: NodeId,
        /// Its nanoseconds.
        nanos: u32,
    },
    /// A symlink target that is empty, too long, or contains a NUL.
    #[error(
        "node {node}: a symlink target of {len} bytes; it must have 1 to {SYMLINK_MAX}, none of them NUL"
    )]
    SymlinkTarget {
        /// The symlink.
        node: NodeId,
        /// Bytes of its target.
        len: usize,
    },
    /// A device number that does not fit 12 and 20 bits.
    #[error("node {node}: device number {major}:{minor} needs more than 12 and 20 bits")]
    DeviceNumber {
        /// The device node.
        node: NodeId,
        /// Its major number.
        major: u32,
        /// Its minor number.
        minor: u32,
    },
    /// Too much content for the tree.
    #[error("node {node}: {len} bytes of inline content are more than {INLINE_MAX}")]
    InlineContent {
        /// The regular file.
        node: NodeId,
        /// Bytes of its content.
        len: usize,
    },
    /// A chunked file that is empty or larger than the kernel's largest file.
    #[error("node {node}: a chunked file of {size} bytes; it must have 1 to 2^63 - 1")]
    FileSize {
        /// The regular file.
        node: NodeId,
        /// Its size in bytes.
        size: u64,
    },
    /// A chunk size that the format does not know.
    #[error("node {node}: chunks of 2^{bits} bytes; {} to {} bits are possible", chunk::BITS.start(), chunk::BITS.end())]
    ChunkBits {
        /// The regular file.
        node: NodeId,
        /// Its chunk bits.
        bits: u8,
    },
    /// More or fewer chunks than the size asks for.
    #[error("node {node}: {found} chunks where the size asks for {expected}")]
    ChunkCount {
        /// The regular file.
        node: NodeId,
        /// Chunks that its size asks for.
        expected: u64,
        /// Chunks that it has.
        found: u64,
    },
    /// A chunk that reaches beyond its device.
    #[error("node {node}: chunk {index} needs {needed} blocks from block {} of {:?}, beyond its end", .chunk.block, .chunk.device)]
    ChunkOutside {
        /// The regular file.
        node: NodeId,
        /// Which chunk of the file.
        index: u64,
        /// Where it should lie.
        chunk: chunk::Chunk,
        /// Blocks it takes there.
        needed: u64,
    },
    /// A name that no file can have.
    #[error("directory {directory}: \"{}\" is not a file name", .name.escape_ascii())]
    EntryName {
        /// The directory.
        directory: NodeId,
        /// The name.
        name: Vec<u8>,
    },
    /// A name that stands twice in a directory.
    #[error("directory {directory}: \"{}\" stands there twice", .name.escape_ascii())]
    DuplicateName {
        /// The directory.
        directory: NodeId,
        /// The name.
        name: Vec<u8>,
    },
    /// An entry for a node outside the list.
    #[error("directory {directory}: \"{}\" names node {node}, which does not exist", .name.escape_ascii())]
    NoSuchNode {
        /// The directory.
        directory: NodeId,
        /// The name.
        name: Vec<u8>,
        /// What it names.
        node: NodeId,
    },
    /// A directory that stands in another directory than the one it calls its parent.
    #[error("directory {directory}: \"{}\" is directory {node}, whose parent is {parent}", .name.escape_ascii())]
    WrongParent {
        /// The directory with the entry.
        directory: NodeId,
        /// The entry.
        name: Vec<u8>,
        /// The directory that it names.
        node: NodeId,
        /// What that one calls its parent.
        parent: NodeId,
    },
    /// A directory with several names.
    #[error("directory {directory}: \"{}\" is a second name of directory {node}", .name.escape_ascii())]
    DirectoryTwice {
        /// The directory with the later entry.
        directory: NodeId,
        /// The entry.
        name: Vec<u8>,
        /// The directory that it names.
        node: NodeId,
    },
    /// A node that no path from the root reaches.
    #[error("node {node} cannot be reached from the root")]
    Unreachable {
        /// The node.
        node: NodeId,
    },
    /// More names than a link count holds.
    #[error("node {node} has more than 2^32 - 1 links")]
    TooManyLinks {
        /// The node.
        node: NodeId,
    },
    /// An xattr that EROFS cannot hold.
    #[error("node {node}: {source}")]
    Xattr {
        /// The node.
        node: NodeId,
        /// The reason.
        source: XattrError,
    },
    /// More than 2^32 - 1 blocks.
    #[error("the tree needs {blocks} blocks, more than 2^32 - 1")]
    TooLarge {
        /// Blocks it would need.
        blocks: u64,
    },
}

/// Why EROFS cannot hold the xattrs of a file.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum XattrError {
    /// Not `user.`, `trusted.`, `security.` or an ACL.
    #[error("xattr \"{}\" is of a namespace that EROFS cannot store", .name.escape_ascii())]
    Namespace {
        /// Full name.
        name: Vec<u8>,
    },
    /// Nothing or too much behind the namespace prefix, or a NUL in it.
    #[error("xattr name \"{}\" must have 1 to {} bytes behind its prefix, none of them NUL", .name.escape_ascii(), xattr::NAME_MAX)]
    Name {
        /// Full name.
        name: Vec<u8>,
    },
    /// A value too long.
    #[error("xattr \"{}\" has a value of {len} bytes, more than {}", .name.escape_ascii(), xattr::VALUE_MAX)]
    Value {
        /// Full name.
        name: Vec<u8>,
        /// Bytes of the value.
        len: usize,
    },
    /// A name that stands twice.
    #[error("xattr \"{}\" stands there twice", .name.escape_ascii())]
    Duplicate {
        /// Full name.
        name: Vec<u8>,
    },
    /// Too much altogether.
    #[error("xattrs take {bytes} bytes, more than {}", xattr::AREA_MAX)]
    TooLarge {
        /// Bytes of all entries and their header.
        bytes: usize,
    },
}
