//! Packing small trees, judged by what lies in the store afterwards. Here: how trees are made, and a view of a packed
//! one that is independent of the reading half of the crate where it can be.

mod cancel;
mod choices;
mod races;
mod sharing;
mod stability;

use std::collections::HashSet;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use g8_cache::{BlockId, StoredBlock};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};
use tempfile::TempDir;

use super::*;
use crate::erofs::{self, Mapping, Tree};
use crate::format::{self, BlockMap, Place, Root, piece, shard};

/// A folder of trees and stores. In memory where there is such a place: a pack syncs the file system that holds its
/// store, and on a disk it would wait for what the whole machine has written.
struct Lab {
    dir: TempDir,
}

impl Lab {
    fn new() -> Lab {
        let memory = Path::new("/dev/shm");
        let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        Lab { dir: dir.unwrap() }
    }

    /// A new or known directory to pack.
    fn tree(&self, name: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::create_dir_all(&path).unwrap();
        path
    }

    fn store(&self, name: &str) -> DirStore {
        DirStore::create(&self.dir.path().join(name)).unwrap()
    }

    /// The address that a tree gets, in a store that nothing else uses.
    fn cid(&self, tree: &Path, options: &PackOptions) -> BlockId {
        let fresh = tempfile::tempdir_in(self.dir.path()).unwrap();
        let store = DirStore::create(&fresh.path().join("store")).unwrap();
        pack_into(tree, options, &store).unwrap().cid
    }
}

/// Bytes that do not compress, the same for ever: a xorshift generator of its own, since pinned CIDs depend on it.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.flatten().take(len).collect()
}

fn write(tree: &Path, path: &str, bytes: &[u8]) {
    let path = tree.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

/// A file of `len` bytes with data at the given places and holes between them.
fn write_sparse(tree: &Path, path: &str, len: u64, data: &[(u64, &[u8])]) {
    let file = File::create(tree.join(path)).unwrap();
    file.set_len(len).unwrap();
    for (at, bytes) in data {
        file.write_all_at(bytes, *at).unwrap();
    }
}

fn set_mtime(path: &Path, secs: i64, nanos: i64) {
    let time = Timespec { tv_sec: secs, tv_nsec: nanos };
    let times = Timestamps { last_access: time, last_modification: time };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// Gives everything in a tree the same time: that of its making is no property of a tree.
fn settle(tree: &Path) {
    for entry in fs::read_dir(tree).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            settle(&entry.path());
        } else {
            set_mtime(&entry.path(), 1_700_000_000, 5);
        }
    }
    set_mtime(tree, 1_700_000_000, 5);
}

fn threads(threads: usize) -> PackOptions {
    PackOptions { threads, ..PackOptions::default() }
}

fn pack_into(tree: &Path, options: &PackOptions, store: &DirStore) -> Result<Report, PackError> {
    pack(tree, options, store, &Progress::default(), &AtomicBool::new(false))
}

/// Every file below a store's folder, temporary ones too.
fn files_of(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            found.append(&mut files_of(&entry.path()));
        } else {
            found.push(entry.path());
        }
    }
    found.sort();
    found
}

/// A packed flist as its objects say.
struct Packed<'a> {
    store: &'a DirStore,
    root: Root,
    tree: Tree<Vec<u8>>,
    map: BlockMap,
    /// Every data block, as the shards name them.
    blocks: Vec<BlockId>,
}

impl<'a> Packed<'a> {
    fn open(store: &'a DirStore, cid: BlockId) -> Packed<'a> {
        let root = Root::from_bytes(&object(store, cid)).unwrap();
        let pieces = |ids: Vec<BlockId>| ids.into_iter().map(|id| object(store, id)).collect::<Vec<_>>();
        let tree = piece::decode("tree", &pieces(root.tree_pieces().unwrap()), root.tree_bytes).unwrap();
        let tree = Tree::open(tree).unwrap();
        erofs::validate(&tree).unwrap();
        let map = piece::decode("map", &pieces(root.map_pieces().unwrap()), root.map_bytes).unwrap();
        let map = format::map::decode(&map, tree.devices()).unwrap();
        let shards = root.shard_ids().unwrap();
        let blocks = shards.iter().flat_map(|id| shard::decode(&object(store, *id)).unwrap()).collect();
        Packed { store, root, tree, map, blocks }
    }

    fn find(&self, path: &str) -> Option<erofs::Inode> {
        let mut inode = self.tree.inode(self.tree.root()).unwrap();
        for name in path.split('/').filter(|name| !name.is_empty()) {
            let nid = self.tree.lookup(&inode, name.as_bytes()).unwrap()?;
            inode = self.tree.inode(nid).unwrap();
        }
        Some(inode)
    }

    fn inode(&self, path: &str) -> erofs::Inode {
        self.find(path).unwrap_or_else(|| panic!("{path} is not in the flist"))
    }

    /// Where the first byte of a file lies.
    fn place(&self, path: &str) -> Mapping<'_> {
        self.tree.map(&self.inode(path), 0).unwrap()
    }

    /// The contents of a file, put together without the cache.
    fn read(&self, path: &str) -> Vec<u8> {
        let inode = self.inode(path);
        let mut bytes = Vec::new();
        while (bytes.len() as u64) < inode.size {
            let mapping = self.tree.map(&inode, bytes.len() as u64).unwrap();
            match mapping.place {
                erofs::Place::Hole => bytes.resize(bytes.len() + mapping.len as usize, 0),
                erofs::Place::Inline(inline) => bytes.extend_from_slice(inline),
                erofs::Place::Device { device, address } => {
                    for part in self.map.parts(device, address, mapping.len) {
                        match part.place {
                            Place::Zero => bytes.resize(bytes.len() + part.len as usize, 0),
                            Place::Block { block, offset } => {
                                let plain = self.block(block);
                                bytes.extend_from_slice(&plain[offset as usize..][..part.len as usize]);
                            }
                        }
                    }
                }
            }
        }
        bytes
    }

    fn block(&self, index: u32) -> Vec<u8> {
        let id = self.map.block_id(index);
        let block = StoredBlock::new(id, object(self.store, id)).unwrap().verify().unwrap();
        block.decode_block(&self.map.block(index)).unwrap().to_vec()
    }

    /// Every object that the root reaches, and the root.
    fn objects(&self, cid: BlockId) -> HashSet<BlockId> {
        let root = &self.root;
        let metadata = [root.tree_pieces(), root.map_pieces(), root.shard_ids()];
        let metadata = metadata.into_iter().flat_map(Result::unwrap);
        self.blocks.iter().copied().chain(metadata).chain([cid]).collect()
    }
}

/// The proven bytes of an object.
fn object(store: &DirStore, id: BlockId) -> Vec<u8> {
    let bytes = store.get(&id).unwrap().unwrap_or_else(|| panic!("{id} is not in the store"));
    assert_eq!(BlockId::of(id.codec(), &bytes), id, "an object has another name than its bytes");
    bytes
}

/// A tree with something of every kind of content: tiny, small, bundled, large, sparse, empty, doubled.
fn mixed(tree: &Path) {
    write(tree, "empty", b"");
    write(tree, "tiny", b"tiny");
    write(tree, "README", &noise(6, 6000));
    write(tree, "etc/conf", &noise(1, 3000));
    write(tree, "etc/conf.d/a", &noise(2, 200));
    for n in 0..40 {
        write(tree, &format!("lib/{n:02}"), &noise(100 + n, 9_000 + 500 * n as usize));
    }
    write(tree, "lib/text", "the same words again and again\n".repeat(9000).as_bytes());
    write(tree, "bin/large", &noise(3, 3 << 20));
    write(tree, "bin/copy", &noise(3, 3 << 20));
    write(tree, "bin/medium", &noise(4, 700_000));
    write_sparse(tree, "hollow", 9 << 20, &[(0, &[1; 5000]), (4 << 20, &noise(5, 300_000))]);
    std::os::unix::fs::symlink("bin/large", tree.join("link")).unwrap();
    fs::hard_link(tree.join("etc/conf"), tree.join("second-name")).unwrap();
}
