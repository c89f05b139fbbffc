//! Directory entries: 12 bytes each at the start of a directory block, the names behind them in the same order.
//!
//! Names have no terminator: one ends where the next begins, the last one at the end of the block or at the first NUL.

use crate::erofs::layout::{FileKind, Nid, bytes_at, put, u16_at, u64_at};

/// Bytes of an entry without its name.
pub const LEN: usize = 12;

/// An entry as stored; nothing is checked yet.
#[derive(Clone, Copy, Debug)]
pub struct RawDirent {
    /// The inode it names.
    pub nid: Nid,
    /// Where its name starts, in bytes from the start of the block.
    pub name_offset: u16,
    /// Type code, see [`FileKind::from_dirent_code`].
    pub code: u8,
    /// Zero.
    pub reserved: u8,
}

impl RawDirent {
    /// Reads an entry.
    pub fn decode(entry: &[u8; LEN]) -> Self {
        let [code, reserved] = bytes_at(entry, 10);
        Self { nid: Nid(u64_at(entry, 0)), name_offset: u16_at(entry, 8), code, reserved }
    }
}

/// Stores an entry.
pub fn encode(nid: Nid, name_offset: u16, kind: FileKind, out: &mut [u8]) {
    put(out, 0, &nid.0.to_le_bytes());
    put(out, 8, &name_offset.to_le_bytes());
    put(out, 10, &[kind.dirent_code(), 0]);
}
