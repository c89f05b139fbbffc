//! Forged flists: an honest one is taken apart, something in it is changed, and everything above the change is encoded
//! and named anew. So every CID is right and only the content lies.

use std::collections::VecDeque;

use bytes::Bytes;
use g8_cache::{BlockId, Codec};
use g8_fs::erofs::Tree;
use g8_fs::format::{Extent, Root, piece, shard};
use unsigned_varint::{decode, encode};

use super::lab::{Objects, Packed};

/// An flist in parts. Change the parts, then [`Forge::seal`].
pub struct Forge {
    pub objects: Objects,
    pub root: Root,
    pub tree: Vec<u8>,
    pub map: RawMap,
    pub shards: Vec<Vec<BlockId>>,
}

impl Forge {
    pub fn of(packed: &Packed) -> Forge {
        let objects = packed.objects.clone();
        let root = Root::from_bytes(&objects[&packed.id]).unwrap();
        let get = |ids: Vec<BlockId>| ids.iter().map(|id| objects[id].clone()).collect::<Vec<Bytes>>();
        let tree = piece::decode("tree", &get(root.tree_pieces().unwrap()), root.tree_bytes).unwrap();
        let map = piece::decode("map", &get(root.map_pieces().unwrap()), root.map_bytes).unwrap();
        let shards = get(root.shard_ids().unwrap());
        let shards = shards.iter().map(|bytes| shard::decode(bytes).unwrap()).collect();
        Forge { root, tree, map: RawMap::parse(&map), shards, objects }
    }

    /// Stores an object under its right name.
    pub fn put(&mut self, codec: Codec, bytes: impl Into<Bytes>) -> BlockId {
        let bytes = bytes.into();
        let id = BlockId::of(codec, &bytes);
        self.objects.insert(id, bytes);
        id
    }

    /// Encodes tree, map and shards as they are now, and lets the root name them.
    pub fn link(&mut self) {
        fix_checksum(&mut self.tree);
        let tree = self.tree.clone();
        self.link_tree(&tree);
        let map = self.map.encode();
        self.link_map(&map);
        self.root.shards.clear();
        for links in self.shards.clone() {
            let id = self.put(Codec::DagCbor, shard::encode(&links).unwrap());
            self.root.shards.push(id.cid());
        }
    }

    pub fn link_tree(&mut self, bytes: &[u8]) {
        let pieces = piece::encode(bytes).unwrap();
        self.root.tree = pieces.into_iter().map(|piece| self.put(Codec::Raw, piece).cid()).collect();
        self.root.tree_bytes = bytes.len() as u64;
    }

    pub fn link_map(&mut self, bytes: &[u8]) {
        let pieces = piece::encode(bytes).unwrap();
        self.root.map = pieces.into_iter().map(|piece| self.put(Codec::Raw, piece).cid()).collect();
        self.root.map_bytes = bytes.len() as u64;
    }

    /// Stores the root as it is now.
    pub fn seal(mut self) -> (BlockId, Objects) {
        let root = self.root.to_bytes().unwrap();
        let id = self.put(Codec::DagCbor, root);
        (id, self.objects)
    }

    /// Where the entry that names a directory stands, in bytes of the tree. A directory comes behind its parent and
    /// names itself, so the first entry with its number is the parent's.
    pub fn dirent_of(&self, path: &str) -> usize {
        let nid = self.nid(path);
        let is_entry = |w: &[u8]| w[..8] == nid.to_le_bytes() && w[10] == 2 && w[11] == 0;
        self.tree.windows(12).position(is_entry).unwrap()
    }

    pub fn nid(&self, path: &str) -> u64 {
        let tree = Tree::open(self.tree.as_slice()).unwrap();
        let mut inode = tree.inode(tree.root()).unwrap();
        for name in path.split('/').filter(|name| !name.is_empty()) {
            inode = tree.inode(tree.lookup(&inode, name.as_bytes()).unwrap().unwrap()).unwrap();
        }
        inode.nid.0
    }

    /// Overwrites the first place where `old` stands in the tree.
    pub fn replace_in_tree(&mut self, old: &[u8], new: &[u8]) {
        let at = self.tree.windows(old.len()).position(|window| window == old).unwrap();
        self.tree[at..at + new.len()].copy_from_slice(new);
    }
}

/// EROFS keeps the CRC-32C of the rest of the first block, from the superblock on, at byte 1028; without the usual
/// final inversion.
pub fn fix_checksum(tree: &mut [u8]) {
    if tree.len() < 4096 {
        return;
    }
    tree[1028..1032].fill(0);
    let sum = !crc32c::crc32c(&tree[1024..4096]);
    tree[1028..1032].copy_from_slice(&sum.to_le_bytes());
}

/// A block map whose every number may be any number.
#[derive(Clone, Debug)]
pub struct RawMap {
    pub magic: Vec<u8>,
    pub frame_len: u64,
    pub block_count: u64,
    pub blocks: Vec<RawBlock>,
    pub extent_counts: [u64; 2],
    pub extents: [Vec<RawExtent>; 2],
    pub tail: Vec<u8>,
}

#[derive(Clone, Debug)]
pub struct RawBlock {
    pub digest: [u8; 32],
    pub plain_len: u64,
    pub frames: Vec<u64>,
}

/// The numbers of an extent as they are stored.
#[derive(Clone, Copy, Debug)]
pub struct RawExtent {
    pub gap: u64,
    pub len: u64,
    /// Block, less that of the extent before, in zigzag form.
    pub block: u64,
    /// Offset; in zigzag form and relative when the block is that of the extent before.
    pub offset: u64,
}

impl RawMap {
    pub fn parse(bytes: &[u8]) -> RawMap {
        let (magic, mut rest) = bytes.split_at(8);
        let number = |rest: &mut &[u8]| {
            let (value, left) = decode::u64(rest).unwrap();
            *rest = left;
            value
        };
        let frame_len = number(&mut rest);
        let block_count = number(&mut rest);
        let mut digests: VecDeque<[u8; 32]> = VecDeque::new();
        for _ in 0..block_count {
            let (digest, left) = rest.split_first_chunk().unwrap();
            digests.push_back(*digest);
            rest = left;
        }
        let lens: Vec<u64> = (0..block_count).map(|_| number(&mut rest)).collect();
        let blocks = lens.into_iter().map(|plain_len| RawBlock {
            digest: digests.pop_front().unwrap(),
            plain_len,
            frames: (0..plain_len.div_ceil(frame_len)).map(|_| number(&mut rest)).collect(),
        });
        let blocks = blocks.collect();
        let extents = [(); 2].map(|()| {
            let count = number(&mut rest);
            let extent = |rest: &mut &[u8]| RawExtent {
                gap: number(rest),
                len: number(rest),
                block: number(rest),
                offset: number(rest),
            };
            (0..count).map(|_| extent(&mut rest)).collect::<Vec<_>>()
        });
        let extent_counts = [extents[0].len() as u64, extents[1].len() as u64];
        RawMap {
            magic: magic.into(),
            frame_len,
            block_count,
            blocks,
            extent_counts,
            extents,
            tail: rest.into(),
        }
    }

    /// Changes extents by their real numbers.
    pub fn change_extents(&mut self, mut change: impl FnMut(&mut Extent)) {
        let zigzag = |value: i64| ((value << 1) ^ (value >> 63)) as u64;
        let unzigzag = |value: u64| (value >> 1) as i64 ^ -((value & 1) as i64);
        for extents in &mut self.extents {
            let zero = Extent { start: 0, len: 0, block: 0, offset: 0 };
            let (mut was, mut is) = (zero, zero);
            for raw in extents {
                let delta = unzigzag(raw.block);
                let behind = i64::from(was.offset + was.len);
                was = Extent {
                    start: was.end() + raw.gap,
                    len: raw.len as u32,
                    block: (i64::from(was.block) + delta) as u32,
                    offset: if delta == 0 { behind + unzigzag(raw.offset) } else { raw.offset as i64 } as u32,
                };
                let mut new = was;
                change(&mut new);
                let behind = i64::from(is.offset + is.len);
                let same = new.block == is.block;
                *raw = RawExtent {
                    gap: new.start - is.end(),
                    len: new.len.into(),
                    block: zigzag(i64::from(new.block) - i64::from(is.block)),
                    offset: if same { zigzag(i64::from(new.offset) - behind) } else { new.offset.into() },
                };
                is = new;
            }
        }
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut out = self.magic.clone();
        let put =
            |out: &mut Vec<u8>, value| out.extend_from_slice(encode::u64(value, &mut encode::u64_buffer()));
        put(&mut out, self.frame_len);
        put(&mut out, self.block_count);
        self.blocks.iter().for_each(|block| out.extend_from_slice(&block.digest));
        self.blocks.iter().for_each(|block| put(&mut out, block.plain_len));
        self.blocks.iter().flat_map(|block| &block.frames).for_each(|stored| put(&mut out, *stored));
        for (count, extents) in self.extent_counts.iter().zip(&self.extents) {
            put(&mut out, *count);
            for extent in extents {
                let numbers = [extent.gap, extent.len, extent.block, extent.offset];
                numbers.into_iter().for_each(|value| put(&mut out, value));
            }
        }
        out.extend_from_slice(&self.tail);
        out
    }
}
