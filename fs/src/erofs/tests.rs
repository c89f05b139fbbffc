//! Tests of writer, reader and validator together. What they share: a builder of nodes, and the comparison of an image
//! with the nodes it was written from.

mod arbitrary;
mod compare;
mod damage;
mod kernel;
mod oddities;
mod refusals;
mod roundtrip;

use super::layout::superblock;
use super::*;

/// Device sizes that the tests use: enough for every chunk they place.
const DEVICES: DeviceSizes = DeviceSizes { small_blocks: 64, big_blocks: 2_000_000 };

/// A list of nodes that grows from its root.
struct Builder {
    nodes: Vec<Node>,
}

impl Builder {
    fn new() -> Self {
        let kind = NodeKind::Directory { parent: NodeId::ROOT, entries: Vec::new() };
        Self { nodes: vec![node(0o755, kind)] }
    }

    /// Adds a node under a name; returns it for changes.
    fn add(&mut self, dir: NodeId, name: &[u8], kind: NodeKind) -> NodeId {
        let id = NodeId(self.nodes.len() as u32);
        self.nodes.push(node(0o644, kind));
        self.link(dir, name, id);
        id
    }

    fn dir(&mut self, dir: NodeId, name: &[u8]) -> NodeId {
        self.add(dir, name, NodeKind::Directory { parent: dir, entries: Vec::new() })
    }

    fn file(&mut self, dir: NodeId, name: &[u8], content: &[u8]) -> NodeId {
        self.add(dir, name, NodeKind::Regular(Content::Inline(content.to_vec())))
    }

    fn link(&mut self, dir: NodeId, name: &[u8], target: NodeId) {
        let NodeKind::Directory { entries, .. } = &mut self.at(dir).kind else {
            panic!("{dir} is no directory")
        };
        entries.push((name.to_vec(), target));
    }

    fn at(&mut self, id: NodeId) -> &mut Node {
        &mut self.nodes[id.0 as usize]
    }

    fn xattr(&mut self, id: NodeId, name: &str, value: &[u8]) {
        self.at(id).xattrs.push(xattr(name, value));
    }

    fn write(&self) -> Vec<u8> {
        write(&self.nodes, DEVICES).expect("the nodes are a tree")
    }
}

fn node(permissions: u16, kind: NodeKind) -> Node {
    Node {
        permissions,
        uid: 0,
        gid: 0,
        mtime: Mtime { secs: 1_700_000_000, nanos: 5 },
        xattrs: Vec::new(),
        kind,
    }
}

fn xattr(name: &str, value: &[u8]) -> Xattr {
    Xattr { name: name.into(), value: value.to_vec() }
}

fn chunked(size: u64, chunk_bits: u8, chunks: &[Option<(Device, u32)>]) -> NodeKind {
    let chunks = chunks.iter().map(|chunk| chunk.map(|(device, block)| Chunk { device, block })).collect();
    NodeKind::Regular(Content::Chunked { size, chunk_bits, chunks })
}

/// Makes the checksum right again, so that damage reaches the code behind it.
fn reseal(image: &mut [u8]) {
    superblock::store_checksum(image);
}

/// A tree of a few blocks that has every kind of file, hardlinks, xattrs of both forms, holes and an inline tail.
fn small_tree() -> Builder {
    let mut tree = Builder::new();
    let root = NodeId::ROOT;
    let sub = tree.dir(root, b"sub");
    let inner = tree.dir(sub, b"inner");
    let tiny = tree.file(inner, b"tiny", b"tiny content");
    tree.link(root, b"!hardlink", tiny);
    tree.file(sub, b"empty", b"");
    let chunks = [Some((Device::Small, 3)), None, Some((Device::Small, 4))];
    let sparse = tree.add(sub, b"sparse", chunked(10_000, 12, &chunks));
    tree.add(root, b"big", chunked(5 << 30, 43, &[Some((Device::Big, 7))]));
    tree.add(root, b"link", NodeKind::Symlink { target: b"sub/inner".to_vec() });
    tree.add(root, b"null", NodeKind::CharDevice { major: 1, minor: 3 });
    tree.add(root, b"disk", NodeKind::BlockDevice { major: 259, minor: 0xf_ff01 });
    tree.add(root, b"pipe", NodeKind::Fifo);
    tree.add(root, b"socket", NodeKind::Socket);
    for id in [tiny, sparse, inner] {
        tree.xattr(id, "security.selinux", b"system_u:object_r:etc_t:s0\0");
    }
    tree.xattr(tiny, "user.own", b"");
    tree.xattr(tiny, "trusted.t", b"odd");
    tree.at(sparse).mtime = Mtime { secs: -5, nanos: 999_999_999 };
    tree.at(sparse).uid = 4_000_000_000;
    tree
}
