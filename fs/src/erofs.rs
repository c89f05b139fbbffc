//! EROFS metadata trees: written byte for byte the same every time, read without copying, judged before use.
//!
//! A tree is an EROFS image that holds every name, inode, xattr and symlink of a file system and no file contents
//! beyond tiny ones. Contents live in two data devices ([`Device::Small`], [`Device::Big`]) that the image names as its
//! extra devices 1 and 2; the chunk tables of the regular files point into them. The same bytes serve the kernel
//! (`mount -t erofs`), the FUSE file system and the tools.
//!
//! * [`write()`] makes an image from a list of [`Node`]s.
//! * [`Tree`] reads one: it never panics, never loops, and allocates nothing that the image asks for.
//! * [`validate()`] accepts exactly the shapes that [`write()`] emits. Run it before an image from elsewhere reaches the kernel.
//!
//! The subset: 4 KiB blocks, uncompressed, chunk tables of 8-byte entries, no long xattr prefixes, no 48-bit layout;
//! required kernel 5.16. One tree has at most 2^32 - 1 blocks, each device likewise (16 TiB).
//!
//! Format reference: <https://erofs.docs.kernel.org/en/latest/ondisk/core_ondisk.html> and `fs/erofs/erofs_fs.h` in Linux.

mod fault;
mod layout;
pub mod reader;
pub mod validate;
pub mod writer;

#[cfg(test)]
mod tests;

pub use layout::{BLOCK_SIZE, Device, DeviceSizes, FileKind, INLINE_MAX, Inode, Mtime, Nid, Rdev};
pub use reader::{Dirent, Fault, Mapping, Place, ReadDir, Tree, TreeError, XattrRef, Xattrs, declared_len};
pub use validate::{Summary, validate};
pub use writer::{
    Chunk, Content, Node, NodeId, NodeKind, WriteError, Xattr, XattrError, check_xattrs, write,
};
