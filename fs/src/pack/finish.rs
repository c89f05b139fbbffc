//! Finishing: entries and runs become the EROFS tree, the map, the shards and the root.

use std::collections::HashSet;

use g8_cache::{BlockId, Codec, MAX_STORED};

use super::encode::Uploads;
use super::layout::Laid;
use super::options::PackOptions;
use super::walk::{Kind, Tree, mtime};
use super::{PackError, Report};
use crate::erofs::{self, Content, Node, NodeId, NodeKind};
use crate::format::{self, FormatError, Root, root};

/// Writes all metadata and returns the address.
pub(super) fn finish(
    tree: &mut Tree,
    laid: Laid,
    options: &PackOptions,
    uploads: &Uploads<'_>,
) -> Result<Report, PackError> {
    let changed = laid.skipped.iter().map(|index| tree.display(*index));
    let skipped = tree.vanished.iter().cloned().chain(changed).collect();
    let nodes = nodes(tree, &laid, options);
    let content_bytes = nodes.iter().map(regular_size).fold(0, u64::saturating_add);
    let tree_bytes = erofs::write(&nodes, laid.spaces).map_err(|e| PackError::TooLarge(e.to_string()))?;
    let map_bytes = laid.map.finish();
    let map = format::map::decode(&map_bytes, laid.spaces).map_err(own_bug)?;
    let mut objects = Objects { uploads, bytes: 0 };
    let blocks: Vec<BlockId> = (0..map.block_count() as u32).map(|index| map.block_id(index)).collect();
    let mut shards = Vec::new();
    for links in blocks.chunks(format::shard::MAX_LINKS) {
        shards.push(objects.put(Codec::DagCbor, &format::shard::encode(links).map_err(own_bug)?)?.cid());
    }
    let root = Root {
        arch: options.arch.clone().or(laid.arch.map(str::to_owned)),
        blocks: blocks.len() as u64,
        config: options.config.clone(),
        content_bytes,
        inodes: nodes.len() as u64,
        kind: root::KIND.into(),
        map: objects.pieces(&map_bytes)?,
        map_bytes: map_bytes.len() as u64,
        os: root::OS.into(),
        parent: None,
        shards,
        stored_bytes: map.stored_bytes(),
        tree: objects.pieces(&tree_bytes)?,
        tree_bytes: tree_bytes.len() as u64,
        version: root::VERSION,
    };
    let bytes = root.to_bytes().map_err(own_bug)?;
    if bytes.len() > MAX_STORED {
        let reason = format!("its root node has {} bytes, at most {MAX_STORED} are possible", bytes.len());
        return Err(PackError::TooLarge(reason));
    }
    Root::from_bytes(&bytes).map_err(|e| PackError::TooLarge(e.to_string()))?;
    // The root comes last: the sink gives names in the order of the puts, and none before all bytes are on the disk.
    let cid = objects.put(Codec::DagCbor, &bytes)?;
    uploads.sync()?;
    Ok(Report {
        cid,
        inodes: root.inodes,
        content_bytes,
        duplicate_bytes: laid.duplicate_bytes,
        blocks: root.blocks,
        stored_bytes: root.stored_bytes,
        metadata_bytes: objects.bytes,
        new_bytes: uploads.new_bytes(),
        skipped,
    })
}

/// What we just wrote does not read back: never the user's fault.
fn own_bug(error: FormatError) -> PackError {
    PackError::Encode(error.into())
}

struct Objects<'a> {
    uploads: &'a Uploads<'a>,
    bytes: u64,
}

impl Objects<'_> {
    fn put(&mut self, codec: Codec, bytes: &[u8]) -> Result<BlockId, PackError> {
        let id = BlockId::of(codec, bytes);
        self.uploads.put(&id, bytes)?;
        self.bytes += bytes.len() as u64;
        Ok(id)
    }

    fn pieces(&mut self, bytes: &[u8]) -> Result<Vec<cid::Cid>, PackError> {
        let pieces = format::piece::encode(bytes).map_err(|e| PackError::Encode(e.into()))?;
        pieces.iter().map(|piece| Ok(self.put(Codec::Raw, piece)?.cid())).collect()
    }
}

fn regular_size(node: &Node) -> u64 {
    match &node.kind {
        NodeKind::Regular(Content::Inline(bytes)) => bytes.len() as u64,
        NodeKind::Regular(Content::Chunked { size, .. }) => *size,
        NodeKind::Directory { .. }
        | NodeKind::Symlink { .. }
        | NodeKind::CharDevice { .. }
        | NodeKind::BlockDevice { .. }
        | NodeKind::Fifo
        | NodeKind::Socket => 0,
    }
}

/// The nodes of the image, in the order of the walk, without the entries that were skipped.
fn nodes(tree: &mut Tree, laid: &Laid, options: &PackOptions) -> Vec<Node> {
    let skipped: HashSet<u32> = laid.skipped.iter().copied().collect();
    let mut next = 0;
    let ids: Vec<Option<NodeId>> = (0..tree.entries.len() as u32)
        .map(|index| {
            (!skipped.contains(&index)).then(|| {
                next += 1;
                NodeId(next - 1)
            })
        })
        .collect();
    let id = |index: u32| ids[index as usize];
    let mut nodes = Vec::with_capacity(next as usize);
    for (index, entry) in tree.entries.iter_mut().enumerate() {
        if id(index as u32).is_none() {
            continue;
        }
        let (major, minor) = (rustix::fs::major(entry.stat.st_rdev), rustix::fs::minor(entry.stat.st_rdev));
        let kind = match &mut entry.kind {
            Kind::Directory(list) => NodeKind::Directory {
                parent: id(entry.parent).expect("only regular files are skipped"),
                entries: std::mem::take(list)
                    .into_iter()
                    .filter_map(|(name, index)| Some((name, id(index)?)))
                    .collect(),
            },
            Kind::Regular => NodeKind::Regular(match laid.contents.get(&(index as u32)) {
                Some(content) => content.content(),
                None => Content::Inline(Vec::new()),
            }),
            Kind::Symlink(target) => NodeKind::Symlink { target: std::mem::take(target) },
            Kind::CharDevice => NodeKind::CharDevice { major, minor },
            Kind::BlockDevice => NodeKind::BlockDevice { major, minor },
            Kind::Fifo => NodeKind::Fifo,
            Kind::Socket => NodeKind::Socket,
        };
        nodes.push(Node {
            permissions: (entry.stat.st_mode & 0o7777) as u16,
            uid: options.owner.map_or(entry.stat.st_uid, |o| o.uid),
            gid: options.owner.map_or(entry.stat.st_gid, |o| o.gid),
            mtime: mtime(&entry.stat, options.clamp_mtime),
            xattrs: std::mem::take(&mut entry.xattrs),
            kind,
        });
    }
    nodes
}
