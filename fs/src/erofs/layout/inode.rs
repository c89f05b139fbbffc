//! Inodes: 32 bytes ("compact", the common case) or 64 bytes ("extended"), at multiples of 32 bytes.
//!
//! Xattrs lie directly behind the inode; behind those either an inline tail (no alignment) or a chunk table (8 bytes
//! aligned). A compact inode has no time of its own but the superblock's epoch: kernels disagree on its mtime field, so
//! every other time takes an extended inode.

use crate::erofs::fault::Fault;
use crate::erofs::layout::{
    BLOCK_SIZE, FileKind, Mtime, NANOS_PER_SEC, Nid, Rdev, bytes_at, chunk, is_zero, put, u16_at, u32_at,
    u64_at, xattr,
};

/// Bytes of a compact inode.
pub const COMPACT_LEN: usize = 32;
/// Bytes of an extended inode.
pub const EXTENDED_LEN: usize = 64;

const FORMAT_EXTENDED: u16 = 1;
const LAYOUT_SHIFT: u32 = 1;
const LAYOUT_PLAIN: u16 = 0;
const LAYOUT_INLINE: u16 = 2;
const LAYOUT_CHUNKS: u16 = 4;

// Offsets that both forms share.
const XATTR_UNITS: usize = 2;
const MODE: usize = 4;
const UNION: usize = 16;
const SERIAL: usize = 20;

/// Where the data of an inode lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Devices, pipes and sockets have no data.
    None,
    /// Blocks of the tree from `start` on; 0 for an empty file.
    Plain {
        /// First block.
        start: u32,
    },
    /// Like plain, but the last partial block lies behind the inode and its xattrs.
    Inline {
        /// First block of the full ones; 0 when there is none.
        start: u32,
    },
    /// A table behind inode and xattrs says where each chunk lies in the data devices.
    Chunks {
        /// log2 of the chunk size in bytes.
        bits: u8,
    },
}

/// An inode as read: a small copy of its facts, with no tie to the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inode {
    /// Its number.
    pub nid: Nid,
    /// `st_mode`: type and permissions.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time; also shown as access and change time.
    pub mtime: Mtime,
    /// Names that lead here; of a directory, 2 + its subdirectories.
    pub nlink: u32,
    /// Bytes of content, dirents or symlink target.
    pub size: u64,
    /// Number of a character or block device, else zero.
    pub rdev: Rdev,
    /// The type in `mode`.
    pub(in crate::erofs) kind: FileKind,
    pub(in crate::erofs) extended: bool,
    /// A 32-bit `st_ino` for old programs. Only a serial number; nothing reads it.
    pub(in crate::erofs) serial: u32,
    /// Bytes of xattrs behind the inode.
    pub(in crate::erofs) xattr_len: u32,
    pub(in crate::erofs) layout: Layout,
}

/// The fields whose place or width depends on the form.
struct Form {
    nlink: u32,
    size: u64,
    uid: u32,
    gid: u32,
    mtime: Mtime,
}

/// A fault, and how many bytes behind the inode's start it was seen.
type At<T> = Result<T, (usize, Fault)>;

impl Inode {
    /// What kind of file this is.
    pub fn kind(&self) -> FileKind {
        self.kind
    }

    /// Whether this is a directory.
    pub fn is_dir(&self) -> bool {
        self.kind == FileKind::Directory
    }

    /// Whether this is a regular file.
    pub fn is_file(&self) -> bool {
        self.kind == FileKind::Regular
    }

    /// Whether this is a symbolic link.
    pub fn is_symlink(&self) -> bool {
        self.kind == FileKind::Symlink
    }

    /// Whether any xattr is attached.
    pub fn has_xattrs(&self) -> bool {
        self.xattr_len != 0
    }

    /// Permission bits, `0o7777`.
    pub fn permissions(&self) -> u16 {
        (self.mode & 0o7777) as u16
    }

    /// Byte offset of the xattrs.
    pub(in crate::erofs) fn xattr_offset(&self) -> u64 {
        self.nid.offset().saturating_add(len(self.extended) as u64)
    }

    /// Byte offset of the inline tail.
    pub(in crate::erofs) fn tail_offset(&self) -> u64 {
        self.xattr_offset().saturating_add(self.xattr_len.into())
    }

    /// Byte offset of the chunk table.
    pub(in crate::erofs) fn table_offset(&self) -> u64 {
        chunk::table_offset(self.tail_offset())
    }

    /// Reads the inode at the start of `bytes`; refuses everything that [`Inode::encode`] does not write.
    ///
    /// # Errors
    /// The broken rule and how far behind the inode's start it was seen.
    pub(in crate::erofs) fn decode(nid: Nid, bytes: &[u8], epoch: Mtime) -> At<Self> {
        let compact: &[u8; COMPACT_LEN] = bytes.first_chunk().ok_or((0, Fault::Outside))?;
        let format = u16_at(compact, 0);
        let extended = format & FORMAT_EXTENDED != 0;
        let form = if extended {
            decode_extended(bytes.first_chunk().ok_or((0, Fault::Outside))?)?
        } else {
            decode_compact(compact, epoch)?
        };
        let mode = u16_at(compact, MODE);
        let kind = FileKind::from_mode(mode).ok_or((MODE, Fault::Mode))?;
        if form.size > i64::MAX.cast_unsigned() {
            return Err((8, Fault::Size));
        }
        let union = u32_at(compact, UNION);
        let layout = decode_layout(format >> LAYOUT_SHIFT, union, kind, form.size)?;
        let is_device = matches!(kind, FileKind::CharDevice | FileKind::BlockDevice);
        let xattr_len =
            xattr::area_len(u16_at(compact, XATTR_UNITS)).ok_or((XATTR_UNITS, Fault::XattrArea))?;
        Ok(Self {
            nid,
            mode: mode.into(),
            uid: form.uid,
            gid: form.gid,
            mtime: form.mtime,
            nlink: form.nlink,
            size: form.size,
            rdev: if is_device { Rdev::decode(union) } else { Rdev::default() },
            kind,
            extended,
            serial: u32_at(compact, SERIAL),
            xattr_len,
            layout,
        })
    }

    /// Whether the 32-byte form can hold these facts.
    pub(in crate::erofs) fn fits_compact(size: u64, nlink: u32, uid: u32, gid: u32, is_epoch: bool) -> bool {
        const SHORT: u32 = u16::MAX as u32;
        is_epoch && u32::try_from(size).is_ok() && nlink <= SHORT && uid <= SHORT && gid <= SHORT
    }

    /// Stores the inode at the start of `out`, which is zero so far.
    pub(in crate::erofs) fn encode(&self, out: &mut [u8]) {
        let (layout, union) = match self.layout {
            Layout::None => {
                (LAYOUT_PLAIN, self.rdev.encode().expect("the writer has checked the device number"))
            }
            Layout::Plain { start } => (LAYOUT_PLAIN, start),
            Layout::Inline { start } => (LAYOUT_INLINE, start),
            Layout::Chunks { bits } => (LAYOUT_CHUNKS, chunk::encode_format(bits)),
        };
        let format = layout << LAYOUT_SHIFT | if self.extended { FORMAT_EXTENDED } else { 0 };
        put(out, 0, &format.to_le_bytes());
        put(out, XATTR_UNITS, &xattr::area_units(self.xattr_len).to_le_bytes());
        put(out, MODE, &(self.mode as u16).to_le_bytes());
        put(out, UNION, &union.to_le_bytes());
        put(out, SERIAL, &self.serial.to_le_bytes());
        if self.extended {
            put(out, 8, &self.size.to_le_bytes());
            put(out, 24, &self.uid.to_le_bytes());
            put(out, 28, &self.gid.to_le_bytes());
            put(out, 32, &self.mtime.secs.to_le_bytes());
            put(out, 40, &self.mtime.nanos.to_le_bytes());
            put(out, 44, &self.nlink.to_le_bytes());
        } else {
            put(out, 6, &(self.nlink as u16).to_le_bytes());
            put(out, 8, &(self.size as u32).to_le_bytes());
            put(out, 24, &(self.uid as u16).to_le_bytes());
            put(out, 26, &(self.gid as u16).to_le_bytes());
        }
    }
}

/// Bytes of an inode.
pub const fn len(extended: bool) -> usize {
    if extended { EXTENDED_LEN } else { COMPACT_LEN }
}

fn decode_compact(inode: &[u8; COMPACT_LEN], epoch: Mtime) -> At<Form> {
    // 6.15 and later add this to the epoch, older kernels ignore it; zero is the only value all agree on.
    if u32_at(inode, 12) != 0 {
        return Err((12, Fault::CompactMtime));
    }
    if u32_at(inode, 28) != 0 {
        return Err((28, Fault::Reserved));
    }
    Ok(Form {
        nlink: u16_at(inode, 6).into(),
        size: u32_at(inode, 8).into(),
        uid: u16_at(inode, 24).into(),
        gid: u16_at(inode, 26).into(),
        mtime: epoch,
    })
}

fn decode_extended(inode: &[u8; EXTENDED_LEN]) -> At<Form> {
    if u16_at(inode, 6) != 0 {
        return Err((6, Fault::Reserved));
    }
    if !is_zero(&bytes_at::<16>(inode, 48)) {
        return Err((48, Fault::Reserved));
    }
    let mtime = Mtime { secs: u64_at(inode, 32).cast_signed(), nanos: u32_at(inode, 40) };
    if mtime.nanos >= NANOS_PER_SEC {
        return Err((40, Fault::Nanoseconds));
    }
    Ok(Form {
        nlink: u32_at(inode, 44),
        size: u64_at(inode, 8),
        uid: u32_at(inode, 24),
        gid: u32_at(inode, 28),
        mtime,
    })
}

/// `layout` is the whole format field without its lowest bit, so unknown format bits match no layout.
fn decode_layout(layout: u16, union: u32, kind: FileKind, size: u64) -> At<Layout> {
    match kind {
        FileKind::CharDevice | FileKind::BlockDevice | FileKind::Fifo | FileKind::Socket => {
            let is_device = matches!(kind, FileKind::CharDevice | FileKind::BlockDevice);
            match (layout, size) {
                (LAYOUT_PLAIN, 0) if is_device || union == 0 => Ok(Layout::None),
                (LAYOUT_PLAIN, 0) => Err((UNION, Fault::Reserved)),
                (LAYOUT_PLAIN, _) => Err((8, Fault::Size)),
                _ => Err((0, Fault::InodeFormat)),
            }
        }
        FileKind::Regular | FileKind::Directory | FileKind::Symlink => match layout {
            LAYOUT_PLAIN if size == 0 && union != 0 => Err((UNION, Fault::StartBlock)),
            LAYOUT_PLAIN if size == 0 && kind != FileKind::Regular => Err((8, Fault::Size)),
            LAYOUT_PLAIN => Ok(Layout::Plain { start: union }),
            LAYOUT_INLINE if size.is_multiple_of(BLOCK_SIZE) => Err((8, Fault::InlineTail)),
            // Only directories outgrow a block and still end behind their inode.
            LAYOUT_INLINE if size > BLOCK_SIZE && kind != FileKind::Directory => Err((8, Fault::InlineTail)),
            LAYOUT_INLINE if size < BLOCK_SIZE && union != 0 => Err((UNION, Fault::StartBlock)),
            LAYOUT_INLINE => Ok(Layout::Inline { start: union }),
            LAYOUT_CHUNKS if kind == FileKind::Regular && size > 0 => {
                let bits = chunk::decode_format(union).ok_or((UNION, Fault::ChunkFormat))?;
                Ok(Layout::Chunks { bits })
            }
            _ => Err((0, Fault::InodeFormat)),
        },
    }
}
