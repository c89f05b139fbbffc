//! What can be wrong with a tree. The list of faults is the list of rules that reader and validator hold a tree to.

use thiserror::Error;

use crate::erofs::layout::{FileKind, Nid};

/// Why a tree, or a part of it, cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum TreeError {
    /// Too short for a superblock, or another magic number.
    #[error("not an EROFS image")]
    NotErofs,
    /// The image needs more than this reader knows.
    #[error("the image needs unknown features {features:#x}")]
    Unsupported {
        /// The unknown incompatible bits.
        features: u32,
    },
    /// The superblock or device table breaks a rule.
    #[error("superblock, byte {offset}: {fault}")]
    Superblock {
        /// Where in the image, in bytes.
        offset: u64,
        /// The rule.
        fault: Fault,
    },
    /// An inode, or what belongs to it, breaks a rule.
    #[error("nid {nid}, byte {offset}: {fault}")]
    Damaged {
        /// The inode.
        nid: Nid,
        /// Where in the image, in bytes.
        offset: u64,
        /// The rule.
        fault: Fault,
    },
    /// The caller asked for something that this kind of file does not have.
    #[error("nid {nid} is no {expected:?}")]
    WrongKind {
        /// The inode.
        nid: Nid,
        /// What it should be.
        expected: FileKind,
    },
    /// The caller asked for a byte behind the end of the file.
    #[error("nid {nid} has {size} bytes, none at {offset}")]
    BeyondEnd {
        /// The inode.
        nid: Nid,
        /// Its size in bytes.
        size: u64,
        /// The byte asked for.
        offset: u64,
    },
}

/// A broken rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Fault {
    // The superblock.
    /// Missing or different.
    #[error("wrong checksum")]
    Checksum,
    /// A needed feature bit is not set.
    #[error("chunk or device feature is not declared")]
    MissingFeature,
    /// An optional feature that the writer does not declare.
    #[error("unknown optional feature")]
    UnknownFeature,
    /// Not 4 KiB.
    #[error("block size is not 4096")]
    BlockSize,
    /// A longer superblock than ours.
    #[error("superblock has extra slots")]
    ExtraSlots,
    /// The declared blocks are not the bytes there are.
    #[error("declared size is not the size of the image")]
    ImageSize,
    /// Inode numbers do not count from the start of the image.
    #[error("inodes do not count from block 0")]
    MetaBlock,
    /// Not the writer's.
    #[error("wrong volume name")]
    VolumeName,
    /// Not two data devices, or not where the writer puts them.
    #[error("wrong device table")]
    DeviceTable,
    /// Not the two names that the writer gives.
    #[error("wrong device tag")]
    DeviceTag,
    /// The number of inodes is not that of the tree.
    #[error("declared number of inodes is not the number reached")]
    InodeCount,

    // Any record.
    /// A field that must be zero is not.
    #[error("reserved field is not zero")]
    Reserved,
    /// Bytes that belong to nothing are not zero.
    #[error("unused byte is not zero")]
    Padding,
    /// Something reaches beyond the image.
    #[error("reaches outside the image")]
    Outside,
    /// Two things share bytes.
    #[error("overlaps something else")]
    Overlap,

    // Inodes.
    /// Unknown format bits, or a layout that this kind of file cannot have.
    #[error("unknown inode format")]
    InodeFormat,
    /// No known type of file.
    #[error("unknown file type in the mode")]
    Mode,
    /// Too large, or not possible for this kind of file.
    #[error("impossible size")]
    Size,
    /// Not below 10^9.
    #[error("nanoseconds are not below a second")]
    Nanoseconds,
    /// Kernels disagree on it.
    #[error("compact inode has a time of its own")]
    CompactMtime,
    /// A start block where there is no block.
    #[error("start block without blocks")]
    StartBlock,
    /// No tail, one that leaves the block of its inode, or one for a file that cannot have it.
    #[error("inline tail is impossible")]
    InlineTail,
    /// More content in the tree than the writer puts there.
    #[error("too much file content in the tree")]
    InlineContent,
    /// Not the number of names, or of subdirectories.
    #[error("link count is wrong")]
    LinkCount,

    // Chunks.
    /// Unknown bits, or no table of 8-byte entries.
    #[error("unknown chunk format")]
    ChunkFormat,
    /// Neither 1 nor 2, or not 0 for a hole.
    #[error("unknown device of a chunk")]
    ChunkDevice,
    /// A chunk ends behind its device.
    #[error("chunk reaches beyond its device")]
    ChunkOutside,

    // Directories.
    /// Name offsets do not start behind the entries, do not increase, or reach outside the block.
    #[error("wrong name offset")]
    NameOffset,
    /// Empty, too long, or with `/` or NUL.
    #[error("not a file name")]
    Name,
    /// Unsorted or twice.
    #[error("name is not greater than the one before")]
    NameOrder,
    /// An unknown type code, or not that of the inode.
    #[error("wrong type of a directory entry")]
    DirentType,
    /// `.` is missing or not the directory.
    #[error("wrong `.`")]
    Dot,
    /// `..` is missing or not the parent.
    #[error("wrong `..`")]
    DotDot,
    /// A cycle or two parents.
    #[error("directory is reached twice")]
    ReachedTwice,
    /// Empty, too long, or with a NUL.
    #[error("not a symlink target")]
    SymlinkTarget,

    // Xattrs.
    /// A header without content, or entries that do not fill the area exactly.
    #[error("wrong xattr area")]
    XattrArea,
    /// An unknown namespace, or a name that it cannot have.
    #[error("not an xattr name")]
    XattrName,
    /// One name twice in a file.
    #[error("xattr stands there twice")]
    XattrTwice,
}
