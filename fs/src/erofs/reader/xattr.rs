//! Extended attributes: first the shared ones by id, then the inode's own entries.

use super::image::Image;
use super::{Fault, TreeError};
use crate::erofs::layout::inode::Inode;
use crate::erofs::layout::xattr::{self, EntryHead, Namespace};
use crate::erofs::layout::{BLOCK_SIZE, Nid, is_zero, u32_at};

/// An xattr of an inode; its full name is `prefix` followed by `name`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XattrRef<'a> {
    /// The namespace, for example `user.`, or the whole name of an ACL.
    pub prefix: &'static [u8],
    /// The name behind the prefix.
    pub name: &'a [u8],
    /// What `getxattr` returns.
    pub value: &'a [u8],
}

/// An entry and where it was found.
#[derive(Clone, Copy, Debug)]
pub struct Located<'a> {
    /// Byte offset in the image.
    pub offset: u64,
    /// Bytes with padding.
    pub len: u64,
    /// Its id, if it is shared.
    pub shared: Option<u32>,
    pub xattr: XattrRef<'a>,
}

/// The xattrs of an inode. Ends after the first error.
#[derive(Clone, Debug)]
pub struct Xattrs<'a> {
    image: Image<'a>,
    nid: Nid,
    /// Shared ids that are left.
    ids: &'a [u8],
    /// The inode's own entries that are left.
    entries: &'a [u8],
    /// Byte offset of `entries`.
    offset: u64,
}

impl<'a> Xattrs<'a> {
    pub(in crate::erofs) fn new(image: Image<'a>, inode: &Inode) -> Result<Self, TreeError> {
        let (nid, offset) = (inode.nid, inode.xattr_offset());
        let none = Self { image, nid, ids: &[], entries: &[], offset };
        if !inode.has_xattrs() {
            return Ok(none);
        }
        let damaged = |fault| TreeError::Damaged { nid, offset, fault };
        let area = image.slice(nid, offset, inode.xattr_len.into())?;
        let (header, rest) =
            area.split_first_chunk::<{ xattr::HEADER_LEN }>().ok_or(damaged(Fault::XattrArea))?;
        if !is_zero(&header[..xattr::SHARED_COUNT]) || !is_zero(&header[xattr::SHARED_COUNT + 1..]) {
            return Err(damaged(Fault::Reserved));
        }
        let ids_len = usize::from(header[xattr::SHARED_COUNT]) * xattr::UNIT;
        let (ids, entries) = rest.split_at_checked(ids_len).ok_or(damaged(Fault::XattrArea))?;
        Ok(Self { ids, entries, offset: offset + (xattr::HEADER_LEN + ids_len) as u64, ..none })
    }

    /// The next xattr and its place.
    pub(in crate::erofs) fn next_located(&mut self) -> Option<Result<Located<'a>, TreeError>> {
        let located = if let Some((id, ids)) = self.ids.split_first_chunk::<{ xattr::UNIT }>() {
            self.ids = ids;
            let id = u32_at(id, 0);
            let area = u64::from(self.image.superblock.xattr_block) * BLOCK_SIZE;
            let offset = area + u64::from(id) * xattr::UNIT as u64;
            let left = (self.image.bytes.len() as u64).saturating_sub(offset);
            let bytes = self.image.slice(self.nid, offset, left);
            bytes.and_then(|bytes| self.decode(bytes, offset, Some(id)))
        } else if self.entries.is_empty() {
            return None;
        } else {
            let located = self.decode(self.entries, self.offset, None);
            if let Ok(located) = &located {
                self.entries = &self.entries[located.len as usize..];
                self.offset += located.len;
            }
            located
        };
        if located.is_err() {
            (self.ids, self.entries) = (&[], &[]);
        }
        Some(located)
    }

    /// Reads the entry at the start of `bytes`.
    fn decode(&self, bytes: &'a [u8], offset: u64, shared: Option<u32>) -> Result<Located<'a>, TreeError> {
        let damaged = |fault| TreeError::Damaged { nid: self.nid, offset, fault };
        let (head, rest) = bytes.split_first_chunk().ok_or(damaged(Fault::XattrArea))?;
        let head = EntryHead::decode(head);
        let len = xattr::entry_len(head.name_len, head.value_len);
        let rest = rest.get(..len - xattr::UNIT).ok_or(damaged(Fault::XattrArea))?;
        let (name, rest) = rest.split_at(head.name_len);
        let (value, padding) = rest.split_at(head.value_len);
        let namespace = Namespace::from_index(head.index).ok_or(damaged(Fault::XattrName))?;
        if name.is_empty() == namespace.named || name.contains(&0) {
            return Err(damaged(Fault::XattrName));
        }
        if !is_zero(padding) {
            return Err(damaged(Fault::Padding));
        }
        let xattr = XattrRef { prefix: namespace.prefix, name, value };
        Ok(Located { offset, len: len as u64, shared, xattr })
    }
}

impl<'a> Iterator for Xattrs<'a> {
    type Item = Result<XattrRef<'a>, TreeError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_located().map(|located| located.map(|located| located.xattr))
    }
}
