//! The superblock at byte 1024 and the table of the two data devices right behind it.
//!
//! The checksum covers bytes 1024..4096, so also the device table and the first inodes: it is stored last.

use crate::erofs::fault::{Fault, TreeError};
use crate::erofs::layout::{
    BLOCK, BLOCK_SIZE, DeviceSizes, INODE_SLOT, Mtime, NANOS_PER_SEC, Nid, bytes_at, is_zero, put, u16_at,
    u32_at, u64_at,
};

/// Byte offset of the superblock.
pub const OFFSET: usize = 1024;
/// Bytes of the superblock.
const LEN: usize = 128;
/// Byte offset of the device table.
const DEVICE_TABLE: usize = OFFSET + LEN;
/// Bytes of a device slot, and the unit of the superblock's device table offset.
const DEVICE_SLOT: usize = 128;
/// The first byte that an inode may take.
pub const END: usize = DEVICE_TABLE + TAGS.len() * DEVICE_SLOT;

/// Tags of the device slots, by device id - 1. The kernel refuses an empty tag in some modes.
const TAGS: [&[u8]; 2] = [b"small", b"big"];
const VOLUME_NAME: [u8; 16] = *b"flist\0\0\0\0\0\0\0\0\0\0\0";
const MAGIC: u32 = 0xE0F5_E1E2;
const COMPAT_CHECKSUM: u32 = 1;
const COMPAT_MTIME: u32 = 2;
/// Chunk-based files, device table. A kernel that knows less must not mount; neither do we mount what needs more.
const INCOMPAT: u32 = 4 | 8;

const CHECKSUM: usize = 4;
const COMPAT: usize = 8;
const BLOCK_BITS: usize = 12;
const EXTRA_SLOTS: usize = 13;
const ROOT: usize = 14;
const INODES: usize = 16;
const EPOCH: usize = 24;
const NANOS: usize = 32;
const BLOCKS: usize = 36;
const META_BLOCK: usize = 40;
const XATTR_BLOCK: usize = 44;
const UUID: usize = 48;
const VOLUME: usize = 64;
const INCOMPAT_AT: usize = 80;
const COMPRESSION: usize = 84;
const EXTRA_DEVICES: usize = 86;
const DEVICE_TABLE_SLOT: usize = 88;
/// From here on: bits of directory blocks, long xattr prefixes, packed inode, reserved; all zero.
const UNUSED: usize = 90;

const SLOT_BLOCKS: usize = 64;
const SLOT_UNIFIED: usize = 68;
const SLOT_UNUSED: usize = 72;

const _: () = assert!(END == 1408 && END < BLOCK && DEVICE_TABLE.is_multiple_of(DEVICE_SLOT));
const _: () = assert!((END as u64).is_multiple_of(INODE_SLOT));

/// What varies between the superblocks that the writer emits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// Optional features; bits that we do not know are kept for the validator.
    pub compat: u32,
    /// The root directory; on disk 16 bits.
    pub root: Nid,
    /// How many inodes the tree has.
    pub inodes: u64,
    /// The time of every compact inode.
    pub epoch: Mtime,
    /// Blocks of the image.
    pub blocks: u32,
    /// First block of the shared xattrs.
    pub xattr_block: u32,
    /// Blocks of the data devices.
    pub devices: DeviceSizes,
}

impl Superblock {
    /// The optional features that the writer declares.
    pub const COMPAT: u32 = COMPAT_CHECKSUM | COMPAT_MTIME;

    /// Where the data devices start when `cat tree small big` makes one image, as the kernel's "flat" mode expects.
    /// 0 when the address needs more than 32 bits: such a tree cannot become one image.
    fn unified(&self) -> [u32; 2] {
        [self.blocks, self.blocks.checked_add(self.devices.small_blocks).unwrap_or(0)]
    }

    /// Stores superblock and device table into a zeroed image, without uuid and checksum.
    pub fn encode(&self, image: &mut [u8]) {
        let root = u16::try_from(self.root.0)
            .expect("the root inode is the first one, so it lies in the first two blocks");
        let sb = &mut image[OFFSET..END];
        put(sb, 0, &MAGIC.to_le_bytes());
        put(sb, COMPAT, &self.compat.to_le_bytes());
        put(sb, BLOCK_BITS, &[BLOCK_SIZE.ilog2() as u8]);
        put(sb, ROOT, &root.to_le_bytes());
        put(sb, INODES, &self.inodes.to_le_bytes());
        put(sb, EPOCH, &self.epoch.secs.to_le_bytes());
        put(sb, NANOS, &self.epoch.nanos.to_le_bytes());
        put(sb, BLOCKS, &self.blocks.to_le_bytes());
        put(sb, XATTR_BLOCK, &self.xattr_block.to_le_bytes());
        put(sb, VOLUME, &VOLUME_NAME);
        put(sb, INCOMPAT_AT, &INCOMPAT.to_le_bytes());
        put(sb, EXTRA_DEVICES, &(TAGS.len() as u16).to_le_bytes());
        put(sb, DEVICE_TABLE_SLOT, &((DEVICE_TABLE / DEVICE_SLOT) as u16).to_le_bytes());
        let blocks = [self.devices.small_blocks, self.devices.big_blocks];
        for (slot, ((tag, blocks), unified)) in TAGS.iter().zip(blocks).zip(self.unified()).enumerate() {
            let slot = &mut sb[LEN + slot * DEVICE_SLOT..];
            put(slot, 0, tag);
            put(slot, SLOT_BLOCKS, &blocks.to_le_bytes());
            put(slot, SLOT_UNIFIED, &unified.to_le_bytes());
        }
    }

    /// The number of blocks that a superblock in the first block of an image declares.
    pub fn declared_blocks(first: &[u8]) -> Option<u32> {
        let first = first.get(..BLOCK)?;
        (u32_at(first, OFFSET) == MAGIC).then(|| u32_at(first, OFFSET + BLOCKS))
    }

    /// Reads the superblock and device table of a whole image.
    ///
    /// # Errors
    /// Whatever is not as [`Superblock::encode`] writes it, except unknown optional features and the uuid.
    pub fn decode(image: &[u8]) -> Result<Self, TreeError> {
        if image.len() < BLOCK || u32_at(image, OFFSET) != MAGIC {
            return Err(TreeError::NotErofs);
        }
        let sb = &image[OFFSET..END];
        let fault = |at: usize, fault| Err(TreeError::Superblock { offset: (OFFSET + at) as u64, fault });
        let compat = u32_at(sb, COMPAT);
        if compat & COMPAT_CHECKSUM == 0 || u32_at(sb, CHECKSUM) != checksum(image) {
            return fault(CHECKSUM, Fault::Checksum);
        }
        let incompat = u32_at(sb, INCOMPAT_AT);
        if incompat & !INCOMPAT != 0 {
            return Err(TreeError::Unsupported { features: incompat & !INCOMPAT });
        }
        let found = Self {
            compat,
            root: Nid(u16_at(sb, ROOT).into()),
            inodes: u64_at(sb, INODES),
            epoch: Mtime { secs: u64_at(sb, EPOCH).cast_signed(), nanos: u32_at(sb, NANOS) },
            blocks: u32_at(sb, BLOCKS),
            xattr_block: u32_at(sb, XATTR_BLOCK),
            devices: DeviceSizes {
                small_blocks: u32_at(sb, LEN + SLOT_BLOCKS),
                big_blocks: u32_at(sb, LEN + DEVICE_SLOT + SLOT_BLOCKS),
            },
        };
        let rules = [
            (INCOMPAT_AT, incompat == INCOMPAT, Fault::MissingFeature),
            (BLOCK_BITS, u32::from(sb[BLOCK_BITS]) == BLOCK_SIZE.ilog2(), Fault::BlockSize),
            (EXTRA_SLOTS, sb[EXTRA_SLOTS] == 0, Fault::ExtraSlots),
            (NANOS, found.epoch.nanos < NANOS_PER_SEC, Fault::Nanoseconds),
            (BLOCKS, u64::from(found.blocks) * BLOCK_SIZE == image.len() as u64, Fault::ImageSize),
            (META_BLOCK, u32_at(sb, META_BLOCK) == 0, Fault::MetaBlock),
            (XATTR_BLOCK, found.xattr_block <= found.blocks, Fault::Outside),
            (VOLUME, sb[VOLUME..VOLUME + 16] == VOLUME_NAME, Fault::VolumeName),
            (COMPRESSION, u16_at(sb, COMPRESSION) == 0, Fault::Reserved),
            (EXTRA_DEVICES, usize::from(u16_at(sb, EXTRA_DEVICES)) == TAGS.len(), Fault::DeviceTable),
            (
                DEVICE_TABLE_SLOT,
                usize::from(u16_at(sb, DEVICE_TABLE_SLOT)) == DEVICE_TABLE / DEVICE_SLOT,
                Fault::DeviceTable,
            ),
            (UNUSED, is_zero(&sb[UNUSED..LEN]), Fault::Reserved),
        ];
        if let Some((at, _, broken)) = rules.into_iter().find(|(_, holds, _)| !holds) {
            return fault(at, broken);
        }
        for (index, (tag, unified)) in TAGS.iter().zip(found.unified()).enumerate() {
            let at = LEN + index * DEVICE_SLOT;
            let slot = &sb[at..at + DEVICE_SLOT];
            if !slot.starts_with(tag) || !is_zero(&slot[tag.len()..SLOT_BLOCKS]) {
                return fault(at, Fault::DeviceTag);
            }
            // Another address would send the kernel's metadata reads to a data device.
            if u32_at(slot, SLOT_UNIFIED) != unified {
                return fault(at + SLOT_UNIFIED, Fault::DeviceTable);
            }
            if !is_zero(&slot[SLOT_UNUSED..]) {
                return fault(at + SLOT_UNUSED, Fault::Reserved);
            }
        }
        Ok(found)
    }
}

/// Stores the uuid, which names the finished image.
pub fn store_uuid(image: &mut [u8], uuid: [u8; 16]) {
    put(image, OFFSET + UUID, &uuid);
}

/// Stores the checksum; nothing in the first block may change after it.
pub fn store_checksum(image: &mut [u8]) {
    let sum = checksum(image);
    put(image, OFFSET + CHECKSUM, &sum.to_le_bytes());
}

/// CRC-32C over the rest of the first block, its own field taken as zero, without the usual final inversion.
fn checksum(image: &[u8]) -> u32 {
    let head = crc32c::crc32c(&bytes_at::<CHECKSUM>(image, OFFSET));
    let zeroed = crc32c::crc32c_append(head, &[0; 4]);
    !crc32c::crc32c_append(zeroed, &image[OFFSET + CHECKSUM + 4..BLOCK])
}
