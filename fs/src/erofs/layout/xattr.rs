//! Extended attributes: a header behind the inode, the ids of shared entries, then the inode's own entries.
//!
//! An entry is 4 bytes of lengths, the name without its namespace prefix, and the value, padded to 4 bytes. Shared ones
//! lie in an area of their own; their id is the offset there in units of 4 bytes.

use crate::erofs::layout::u16_at;

/// Bytes of the header.
pub const HEADER_LEN: usize = 12;
/// Bytes of an entry before its name, bytes of a shared id, and the alignment of both.
pub const UNIT: usize = 4;
/// Where the header counts the shared ids; the name filter before it and the rest behind it are zero.
pub const SHARED_COUNT: usize = 4;
/// Longest name without prefix.
pub const NAME_MAX: usize = u8::MAX as usize;
/// Longest value.
pub const VALUE_MAX: usize = u16::MAX as usize;
/// Most shared entries of one inode.
pub const SHARED_MAX: usize = u8::MAX as usize;
/// Most bytes of header, ids and entries of one inode: its count of units is 16 bits, the first one stands for the header.
pub const AREA_MAX: usize = HEADER_LEN + (u16::MAX as usize - 1) * UNIT;

/// A namespace that EROFS can store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Namespace {
    /// Its number on disk.
    pub index: u8,
    /// How its names start.
    pub prefix: &'static [u8],
    /// Whether a name follows the prefix; else the prefix is the whole name.
    pub named: bool,
}

const NAMESPACES: [Namespace; 5] = [
    Namespace { index: 1, prefix: b"user.", named: true },
    Namespace { index: 2, prefix: b"system.posix_acl_access", named: false },
    Namespace { index: 3, prefix: b"system.posix_acl_default", named: false },
    Namespace { index: 4, prefix: b"trusted.", named: true },
    Namespace { index: 6, prefix: b"security.", named: true },
];

impl Namespace {
    /// The namespace with this number.
    pub fn from_index(index: u8) -> Option<&'static Self> {
        NAMESPACES.iter().find(|namespace| namespace.index == index)
    }

    /// Splits a full name; `None` when no namespace fits.
    pub fn split(full_name: &[u8]) -> Option<(&'static Self, &[u8])> {
        NAMESPACES.iter().find_map(|namespace| {
            let name = full_name.strip_prefix(namespace.prefix)?;
            (namespace.named || name.is_empty()).then_some((namespace, name))
        })
    }
}

/// Bytes of header, ids and entries that an inode's count of units tells; `None` for a header without content, which
/// the kernel refuses.
pub fn area_len(units: u16) -> Option<u32> {
    match units {
        0 => Some(0),
        1 => None,
        _ => Some(HEADER_LEN as u32 + (u32::from(units) - 1) * UNIT as u32),
    }
}

/// The inverse of [`area_len`]; `len` is at most [`AREA_MAX`].
pub fn area_units(len: u32) -> u16 {
    match len {
        0 => 0,
        _ => u16::try_from(1 + (len - HEADER_LEN as u32) / UNIT as u32)
            .expect("the writer has checked AREA_MAX"),
    }
}

/// Bytes of an entry with its padding.
pub const fn entry_len(name_len: usize, value_len: usize) -> usize {
    (UNIT + name_len + value_len).next_multiple_of(UNIT)
}

/// Appends an entry.
pub fn encode_entry(namespace: &Namespace, name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    let end = out.len() + entry_len(name.len(), value.len());
    let name_len = u8::try_from(name.len()).expect("check_xattrs bounds names");
    let value_len = u16::try_from(value.len()).expect("check_xattrs bounds values");
    out.extend_from_slice(&[name_len, namespace.index]);
    out.extend_from_slice(&value_len.to_le_bytes());
    out.extend_from_slice(name);
    out.extend_from_slice(value);
    out.resize(end, 0);
}

/// The lengths at the start of an entry.
#[derive(Clone, Copy, Debug)]
pub struct EntryHead {
    /// Bytes of the name without prefix.
    pub name_len: usize,
    /// Number of the namespace.
    pub index: u8,
    /// Bytes of the value.
    pub value_len: usize,
}

impl EntryHead {
    /// Reads the lengths.
    pub fn decode(head: &[u8; UNIT]) -> Self {
        Self { name_len: head[0].into(), index: head[1], value_len: u16_at(head, 2).into() }
    }
}
