//! The on-disk records: each is encoded and decoded in one place, so writer and reader cannot disagree.
//!
//! All integers are little endian. Changing any constant below changes the format: old images stop opening, and every
//! published tree gets another name.

pub mod chunk;
pub mod dirent;
pub mod inode;
pub mod superblock;
pub mod xattr;

use std::fmt;

pub use inode::Inode;

/// Bytes in a block, of the tree and of both devices.
pub const BLOCK_SIZE: u64 = 4096;

/// The largest file content, in bytes, that may live in the tree itself.
pub const INLINE_MAX: usize = 2048;

/// Longest name of a directory entry in bytes.
pub const NAME_MAX: usize = 255;

/// Longest symlink target in bytes: the kernel's `PATH_MAX` without its NUL.
pub const SYMLINK_MAX: usize = 4095;

/// Nanoseconds in a second; a timestamp's nanoseconds stay below it.
pub const NANOS_PER_SEC: u32 = 1_000_000_000;

/// [`BLOCK_SIZE`] for indexing.
pub const BLOCK: usize = BLOCK_SIZE as usize;

/// Inodes start at multiples of this many bytes, and a nid counts in it.
pub const INODE_SLOT: u64 = 32;

/// The number of an inode: its byte offset in the image divided by 32. The kernel shows it as `st_ino`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Nid(pub u64);

impl Nid {
    /// Byte offset of the inode; saturated for numbers that no image reaches, so that bounds checks refuse them.
    pub fn offset(self) -> u64 {
        self.0.saturating_mul(INODE_SLOT)
    }
}

impl fmt::Display for Nid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The two data devices: extra device 1 and 2 of the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Device {
    /// Device 1: small contents in tree order, read through the page cache.
    Small,
    /// Device 2: large contents, read directly.
    Big,
}

impl Device {
    /// The id that chunk tables use.
    pub const fn id(self) -> u16 {
        match self {
            Self::Small => 1,
            Self::Big => 2,
        }
    }

    /// The device behind an id of a chunk table.
    pub const fn from_id(id: u16) -> Option<Self> {
        match id {
            1 => Some(Self::Small),
            2 => Some(Self::Big),
            _ => None,
        }
    }
}

/// How many blocks of 4 KiB each data device has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct DeviceSizes {
    /// Blocks of [`Device::Small`].
    pub small_blocks: u32,
    /// Blocks of [`Device::Big`].
    pub big_blocks: u32,
}

impl DeviceSizes {
    /// Blocks of one device.
    pub const fn blocks(self, device: Device) -> u32 {
        match device {
            Device::Small => self.small_blocks,
            Device::Big => self.big_blocks,
        }
    }
}

/// A modification time; the only time EROFS stores.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mtime {
    /// Seconds since 1970, negative before.
    pub secs: i64,
    /// Nanoseconds after `secs`, below 10^9.
    pub nanos: u32,
}

/// The number of a device node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Rdev {
    /// Major number, 12 bits.
    pub major: u32,
    /// Minor number, 20 bits.
    pub minor: u32,
}

impl Rdev {
    /// The kernel's `new_encode_dev`; `None` when a number needs more bits than that has.
    pub const fn encode(self) -> Option<u32> {
        if self.major > 0xfff || self.minor > 0xf_ffff {
            return None;
        }
        Some(self.minor & 0xff | self.major << 8 | (self.minor & !0xff) << 12)
    }

    /// The kernel's `new_decode_dev`; every value means something.
    pub const fn decode(encoded: u32) -> Self {
        Self { major: encoded >> 8 & 0xfff, minor: encoded & 0xff | encoded >> 12 & 0xf_ff00 }
    }
}

/// What kind of file an inode is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FileKind {
    /// Regular file.
    Regular,
    /// Directory.
    Directory,
    /// Character device.
    CharDevice,
    /// Block device.
    BlockDevice,
    /// Named pipe.
    Fifo,
    /// Unix socket.
    Socket,
    /// Symbolic link.
    Symlink,
}

impl FileKind {
    const ALL: [Self; 7] = [
        Self::Regular,
        Self::Directory,
        Self::CharDevice,
        Self::BlockDevice,
        Self::Fifo,
        Self::Socket,
        Self::Symlink,
    ];

    /// The `S_IFMT` bits of `st_mode`.
    pub const fn mode_bits(self) -> u16 {
        match self {
            Self::Fifo => 0o010_000,
            Self::CharDevice => 0o020_000,
            Self::Directory => 0o040_000,
            Self::BlockDevice => 0o060_000,
            Self::Regular => 0o100_000,
            Self::Symlink => 0o120_000,
            Self::Socket => 0o140_000,
        }
    }

    /// The kind that `st_mode` tells; `None` for bits that POSIX does not know.
    pub fn from_mode(mode: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.mode_bits() == mode & 0o170_000)
    }

    /// The type byte of a directory entry (`EROFS_FT_*`).
    pub const fn dirent_code(self) -> u8 {
        match self {
            Self::Regular => 1,
            Self::Directory => 2,
            Self::CharDevice => 3,
            Self::BlockDevice => 4,
            Self::Fifo => 5,
            Self::Socket => 6,
            Self::Symlink => 7,
        }
    }

    /// The kind behind a directory entry's type byte.
    pub fn from_dirent_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.dirent_code() == code)
    }
}

/// The `N` bytes at `at`. Callers pass constant offsets into records whose length they have checked.
pub fn bytes_at<const N: usize>(record: &[u8], at: usize) -> [u8; N] {
    record[at..at + N].try_into().expect("a range of N bytes makes an array of N")
}

/// Little-endian u16 at a constant offset of a record.
pub fn u16_at(record: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes_at(record, at))
}

/// Little-endian u32 at a constant offset of a record.
pub fn u32_at(record: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes_at(record, at))
}

/// Little-endian u64 at a constant offset of a record.
pub fn u64_at(record: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes_at(record, at))
}

/// Stores `value` at `at`; the writer's buffers are as long as its plan says.
pub fn put(record: &mut [u8], at: usize, value: &[u8]) {
    record[at..at + value.len()].copy_from_slice(value);
}

/// Whether all bytes are zero.
pub fn is_zero(bytes: &[u8]) -> bool {
    // Whole words first: gaps of an image can be megabytes.
    let (words, rest) = bytes.as_chunks::<16>();
    words.iter().all(|word| u128::from_ne_bytes(*word) == 0) && rest.iter().all(|byte| *byte == 0)
}
