//! Sorts directories and cuts them into blocks.
//!
//! Entries are sorted by unsigned bytes over the whole directory, `.` and `..` among them at their sorted places, because
//! the kernel searches by halves: over the blocks first, then inside one.

use super::{Node, NodeId, NodeKind, PerNode, WriteError};
use crate::erofs::layout::{BLOCK, FileKind, NAME_MAX, Nid, dirent, put};

/// An entry of a directory.
#[derive(Clone, Copy)]
pub struct Entry<'a> {
    pub name: &'a [u8],
    pub node: NodeId,
}

/// The sorted entries of every directory.
pub struct Listings<'a>(PerNode<Entry<'a>>);

impl<'a> Listings<'a> {
    /// Sorts all directories.
    pub fn new(nodes: &'a [Node]) -> Result<Self, WriteError> {
        let mut all = PerNode::with_capacity(nodes.len());
        for (directory, node) in (0..).map(NodeId).zip(nodes) {
            if let NodeKind::Directory { parent, entries } = &node.kind {
                let start = all.items.len();
                for (name, target) in entries {
                    check_entry(directory, name, *target, nodes.len())?;
                    all.items.push(Entry { name, node: *target });
                }
                all.items.push(Entry { name: b".", node: directory });
                all.items.push(Entry { name: b"..", node: *parent });
                let sorted = &mut all.items[start..];
                sorted.sort_unstable_by_key(|entry| entry.name);
                if let Some(twice) = sorted.windows(2).find(|pair| pair[0].name == pair[1].name) {
                    return Err(WriteError::DuplicateName { directory, name: twice[0].name.to_vec() });
                }
            }
            all.close();
        }
        Ok(Self(all))
    }

    /// All entries of a directory; nothing for other nodes.
    pub fn of(&self, node: usize) -> &[Entry<'a>] {
        self.0.of(node)
    }

    /// The entries of a directory without `.` and `..`.
    pub fn named(&self, node: usize) -> impl Iterator<Item = &Entry<'a>> {
        self.of(node).iter().filter(|entry| !matches!(entry.name, b"." | b".."))
    }
}

fn check_entry(directory: NodeId, name: &[u8], node: NodeId, nodes: usize) -> Result<(), WriteError> {
    let is_name = (1..=NAME_MAX).contains(&name.len())
        && !matches!(name, b"." | b"..")
        && !name.iter().any(|byte| matches!(byte, 0 | b'/'));
    if !is_name {
        return Err(WriteError::EntryName { directory, name: name.to_vec() });
    }
    if node.index() >= nodes {
        return Err(WriteError::NoSuchNode { directory, name: name.to_vec(), node });
    }
    Ok(())
}

/// Cuts a directory into the entries of one block each, with the bytes they take there.
pub fn blocks<'e, 'a>(mut entries: &'e [Entry<'a>]) -> impl Iterator<Item = (&'e [Entry<'a>], usize)> {
    std::iter::from_fn(move || {
        let mut used = 0;
        let fitting = entries.iter().take_while(|entry| {
            let with = used + dirent::LEN + entry.name.len();
            let fits = with <= BLOCK;
            used = if fits { with } else { used };
            fits
        });
        let count = fitting.count();
        let (block, rest) = entries.split_at(count);
        entries = rest;
        (count > 0).then_some((block, used))
    })
}

/// Bytes of a directory, at least those of `.` and `..`: full blocks and what the last one uses.
pub fn size(entries: &[Entry<'_>]) -> u64 {
    let (mut full, mut last) = (0_u64, 0);
    for (_, used) in blocks(entries) {
        full += if last > 0 { BLOCK as u64 } else { 0 };
        last = used as u64;
    }
    full + last
}

/// Stores a block of entries at the start of `out`, which is zero so far.
pub fn encode(entries: &[Entry<'_>], out: &mut [u8], place: impl Fn(NodeId) -> (Nid, FileKind)) {
    let mut name_at = entries.len() * dirent::LEN;
    for (index, entry) in entries.iter().enumerate() {
        let (nid, kind) = place(entry.node);
        dirent::encode(nid, name_at as u16, kind, &mut out[index * dirent::LEN..]);
        put(out, name_at, entry.name);
        name_at += entry.name.len();
    }
}
