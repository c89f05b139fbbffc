//! Refuses nodes and trees that EROFS cannot hold, and counts links on the way.

use super::listing::Listings;
use super::{Content, Node, NodeId, NodeKind, WriteError, check_xattrs};
use crate::erofs::layout::chunk::{self, Chunk};
use crate::erofs::layout::{DeviceSizes, INLINE_MAX, NANOS_PER_SEC, Rdev, SYMLINK_MAX};

/// Checks what each node says about itself.
pub fn nodes(nodes: &[Node], devices: DeviceSizes) -> Result<(), WriteError> {
    match nodes.first().map(|root| &root.kind) {
        Some(NodeKind::Directory { parent: NodeId::ROOT, .. }) => {}
        Some(_) | None => return Err(WriteError::NoRoot),
    }
    if u32::try_from(nodes.len()).is_err() {
        return Err(WriteError::TooManyNodes { nodes: nodes.len() });
    }
    (0..).map(NodeId).zip(nodes).try_for_each(|(id, node)| check_node(id, node, devices))
}

fn check_node(id: NodeId, node: &Node, devices: DeviceSizes) -> Result<(), WriteError> {
    if node.permissions & !0o7777 != 0 {
        return Err(WriteError::Permissions { node: id, permissions: node.permissions });
    }
    if node.mtime.nanos >= NANOS_PER_SEC {
        return Err(WriteError::Nanoseconds { node: id, nanos: node.mtime.nanos });
    }
    check_xattrs(&node.xattrs).map_err(|source| WriteError::Xattr { node: id, source })?;
    match &node.kind {
        NodeKind::Directory { .. } | NodeKind::Fifo | NodeKind::Socket => Ok(()),
        NodeKind::Symlink { target } if (1..=SYMLINK_MAX).contains(&target.len()) && !target.contains(&0) => {
            Ok(())
        }
        NodeKind::Symlink { target } => Err(WriteError::SymlinkTarget { node: id, len: target.len() }),
        &NodeKind::CharDevice { major, minor } | &NodeKind::BlockDevice { major, minor } => {
            match (Rdev { major, minor }).encode() {
                Some(_) => Ok(()),
                None => Err(WriteError::DeviceNumber { node: id, major, minor }),
            }
        }
        NodeKind::Regular(Content::Inline(bytes)) if bytes.len() <= INLINE_MAX => Ok(()),
        NodeKind::Regular(Content::Inline(bytes)) => {
            Err(WriteError::InlineContent { node: id, len: bytes.len() })
        }
        NodeKind::Regular(Content::Chunked { size, chunk_bits, chunks }) => {
            check_chunks(id, *size, *chunk_bits, chunks, devices)
        }
    }
}

fn check_chunks(
    id: NodeId,
    size: u64,
    bits: u8,
    chunks: &[Option<Chunk>],
    devices: DeviceSizes,
) -> Result<(), WriteError> {
    if size == 0 || size > i64::MAX.cast_unsigned() {
        return Err(WriteError::FileSize { node: id, size });
    }
    if !chunk::BITS.contains(&bits) {
        return Err(WriteError::ChunkBits { node: id, bits });
    }
    let (expected, found) = (chunk::count(size, bits), chunks.len() as u64);
    if expected != found {
        return Err(WriteError::ChunkCount { node: id, expected, found });
    }
    for (index, chunk) in (0..).zip(chunks) {
        let Some(chunk) = *chunk else { continue };
        let needed = chunk::blocks(size, bits, index);
        if u64::from(chunk.block) + needed > u64::from(devices.blocks(chunk.device)) {
            return Err(WriteError::ChunkOutside { node: id, index, chunk, needed });
        }
    }
    Ok(())
}

/// Checks that the directories form a tree that reaches every node; returns the link count of each.
pub fn links(nodes: &[Node], listings: &Listings<'_>) -> Result<Vec<u32>, WriteError> {
    let mut links = vec![0_u32; nodes.len()];
    let mut is_named = vec![false; nodes.len()];
    for (index, node) in nodes.iter().enumerate() {
        let NodeKind::Directory { .. } = node.kind else { continue };
        let directory = NodeId(index as u32);
        add_link(&mut links, directory, 2)?;
        for entry in listings.named(index) {
            let (name, target) = (entry.name, entry.node);
            if let NodeKind::Directory { parent, .. } = nodes[target.index()].kind {
                // The root has no name, so whatever names it is wrong, even the root.
                if parent != directory || target == NodeId::ROOT {
                    return Err(WriteError::WrongParent {
                        directory,
                        name: name.to_vec(),
                        node: target,
                        parent,
                    });
                }
                if is_named[target.index()] {
                    return Err(WriteError::DirectoryTwice { directory, name: name.to_vec(), node: target });
                }
                add_link(&mut links, directory, 1)?;
            } else {
                add_link(&mut links, target, 1)?;
            }
            is_named[target.index()] = true;
        }
    }
    match is_named.iter().skip(1).position(|named| !named) {
        Some(before) => Err(WriteError::Unreachable { node: NodeId(before as u32 + 1) }),
        None => check_no_cycle(nodes).map(|()| links),
    }
}

fn add_link(links: &mut [u32], node: NodeId, more: u32) -> Result<(), WriteError> {
    let count = &mut links[node.index()];
    *count = count.checked_add(more).ok_or(WriteError::TooManyLinks { node })?;
    Ok(())
}

/// Every directory has one parent by now, so one that does not lead to the root hangs on a ring.
fn check_no_cycle(nodes: &[Node]) -> Result<(), WriteError> {
    let mut reaches_root = vec![false; nodes.len()];
    reaches_root[0] = true;
    let mut path = Vec::new();
    for start in 0..nodes.len() {
        let mut at = start;
        while let NodeKind::Directory { parent, .. } = &nodes[at].kind
            && !reaches_root[at]
        {
            path.push(at);
            at = parent.index();
            // Longer than all nodes together: the climb goes round.
            if path.len() > nodes.len() {
                return Err(WriteError::Unreachable { node: NodeId(start as u32) });
            }
        }
        path.drain(..).for_each(|seen| reaches_root[seen] = true);
    }
    Ok(())
}
