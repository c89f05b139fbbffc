//! The rules about the entries of a directory.

use super::Walk;
use crate::erofs::layout::inode::Inode;
use crate::erofs::layout::{FileKind, Nid, dirent, is_zero};
use crate::erofs::reader::{DirBlock, Dirent, Fault, TreeError};

/// What the walk through a directory has seen so far.
struct Listing<'a> {
    dir: Nid,
    parent: Nid,
    /// The name before; names are never empty.
    last: &'a [u8],
    has_dot: bool,
    has_dot_dot: bool,
    subdirectories: u32,
}

impl Walk<'_> {
    /// Judges the entries of a directory whose bytes are claimed, and follows them.
    pub(super) fn directory(&mut self, dir: &Inode, parent: Nid) -> Result<(), TreeError> {
        let (has_dot, has_dot_dot) = (false, false);
        let mut listing =
            Listing { dir: dir.nid, parent, last: b"", has_dot, has_dot_dot, subdirectories: 0 };
        let blocks = self.image.dir_blocks(dir);
        for number in 0..blocks {
            let block = self.image.dir_block(dir, number)?;
            for index in 0..block.count {
                // Nobody continues a listing from here, so there is no cookie.
                let entry = block.dirent(index, 0)?;
                if entry.name <= listing.last {
                    return Err(block.damaged(index, Fault::NameOrder));
                }
                listing.last = entry.name;
                self.entry(&mut listing, entry, block.offset + (index * dirent::LEN) as u64)?;
            }
            check_names_end(&block, number + 1 == blocks)?;
        }
        if !listing.has_dot {
            return Err(self.damaged(dir.nid, Fault::Dot));
        }
        if !listing.has_dot_dot {
            return Err(self.damaged(dir.nid, Fault::DotDot));
        }
        if dir.nlink.checked_sub(2) != Some(listing.subdirectories) {
            return Err(self.damaged(dir.nid, Fault::LinkCount));
        }
        Ok(())
    }

    fn entry(&mut self, listing: &mut Listing<'_>, entry: Dirent<'_>, offset: u64) -> Result<(), TreeError> {
        let is_dir = entry.kind == FileKind::Directory;
        let damaged = |fault| Err(TreeError::Damaged { nid: listing.dir, offset, fault });
        match entry.name {
            b"." if !is_dir || entry.nid != listing.dir => damaged(Fault::Dot),
            b".." if !is_dir || entry.nid != listing.parent => damaged(Fault::DotDot),
            b"." => {
                listing.has_dot = true;
                Ok(())
            }
            b".." => {
                listing.has_dot_dot = true;
                Ok(())
            }
            _ => {
                listing.subdirectories = listing.subdirectories.saturating_add(u32::from(is_dir));
                self.reach(listing.dir, entry, offset)
            }
        }
    }
}

/// A name may only be followed by zeros up to the end of a full block, and by nothing in the last one.
fn check_names_end(block: &DirBlock<'_>, is_last: bool) -> Result<(), TreeError> {
    let last = block.count - 1;
    let end = usize::from(block.raw(last)?.name_offset) + block.name(last)?.len();
    match block.bytes.get(end..) {
        Some([]) => Ok(()),
        Some(padding) if !is_last && is_zero(padding) => Ok(()),
        Some(_) | None => Err(block.damaged(last, Fault::Padding)),
    }
}
