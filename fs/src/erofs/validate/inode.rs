//! The rules about one inode, its xattrs and its data.

use super::Walk;
use super::claims::check_gap;
use crate::erofs::layout::inode::{Inode, Layout};
use crate::erofs::layout::{BLOCK_SIZE, FileKind, INLINE_MAX, chunk};
use crate::erofs::reader::{Fault, TreeError, Xattrs};

impl Walk<'_> {
    /// Judges and claims an inode that is reached for the first time; the entries of a directory come later.
    pub(super) fn inode(&mut self, inode: &Inode) -> Result<(), TreeError> {
        self.summary.inodes += 1;
        self.summary.has_xattrs |= inode.has_xattrs();
        let count = match inode.kind() {
            FileKind::Directory => &mut self.summary.directories,
            FileKind::Regular => {
                let bytes = &mut self.summary.content_bytes;
                *bytes = bytes.saturating_add(inode.size);
                &mut self.summary.files
            }
            FileKind::Symlink => &mut self.summary.symlinks,
            FileKind::CharDevice | FileKind::BlockDevice | FileKind::Fifo | FileKind::Socket => {
                &mut self.summary.others
            }
        };
        *count += 1;
        self.data(inode)?;
        self.xattrs(inode)?;
        if inode.is_symlink() {
            self.image.read_link(inode)?;
        }
        Ok(())
    }

    /// Claims the inode together with what lies behind it, then its blocks.
    fn data(&mut self, inode: &Inode) -> Result<(), TreeError> {
        let head_end = inode.tail_offset();
        match inode.layout {
            Layout::None => self.claim_from(inode, head_end),
            Layout::Chunks { bits } => self.chunks(inode, bits),
            Layout::Plain { start } => {
                self.claim_from(inode, head_end)?;
                self.blocks(inode, start, inode.size)
            }
            Layout::Inline { start } => {
                let tail = inode.size % BLOCK_SIZE;
                let end = head_end.saturating_add(tail);
                // As the writer places it: inode, xattrs and tail in one block.
                if inode.nid.offset() / BLOCK_SIZE != (end - 1) / BLOCK_SIZE {
                    return Err(self.damaged(inode.nid, Fault::InlineTail));
                }
                self.claim_from(inode, end)?;
                self.blocks(inode, start, inode.size - tail)
            }
        }?;
        let is_chunked = matches!(inode.layout, Layout::Chunks { .. });
        if inode.is_file() && !is_chunked && inode.size > INLINE_MAX as u64 {
            return Err(self.damaged(inode.nid, Fault::InlineContent));
        }
        Ok(())
    }

    /// Claims everything from the inode's start on.
    fn claim_from(&mut self, inode: &Inode, end: u64) -> Result<(), TreeError> {
        let start = inode.nid.offset();
        self.image.slice(inode.nid, start, end - start)?;
        self.claims.add(inode.nid, start, end)
    }

    /// Claims whole blocks for `size` bytes from block `start` on. The rest of the last one is zero: mmap shows it.
    fn blocks(&mut self, inode: &Inode, start: u32, size: u64) -> Result<(), TreeError> {
        let start = u64::from(start) * BLOCK_SIZE;
        self.image.slice(inode.nid, start, size)?;
        let end = start + size;
        // The image is whole blocks.
        let block_end = start + size.next_multiple_of(BLOCK_SIZE);
        self.claims.add(inode.nid, start, block_end)?;
        check_gap(inode.nid, self.image.bytes, end, block_end)
    }

    fn chunks(&mut self, inode: &Inode, bits: u8) -> Result<(), TreeError> {
        let count = chunk::count(inode.size, bits);
        let table = inode.table_offset();
        let len = count.saturating_mul(chunk::ENTRY_LEN as u64);
        self.image.slice(inode.nid, table, len)?;
        self.claim_from(inode, table + len)?;
        check_gap(inode.nid, self.image.bytes, inode.tail_offset(), table)?;
        (0..count).try_for_each(|index| self.image.chunk(inode, bits, index).map(|_| ()))
    }

    fn xattrs(&mut self, inode: &Inode) -> Result<(), TreeError> {
        let mut xattrs = Xattrs::new(self.image, inode)?;
        let mut names = Vec::new();
        while let Some(found) = xattrs.next_located() {
            let found = found?;
            if let Some(id) = found.shared
                && self.shared_xattrs.insert(id)
            {
                self.claims.add(inode.nid, found.offset, found.offset + found.len)?;
            }
            names.push((found.xattr.prefix, found.xattr.name));
        }
        names.sort_unstable();
        if names.windows(2).any(|pair| pair[0] == pair[1]) {
            let offset = inode.xattr_offset();
            return Err(TreeError::Damaged { nid: inode.nid, offset, fault: Fault::XattrTwice });
        }
        Ok(())
    }
}
