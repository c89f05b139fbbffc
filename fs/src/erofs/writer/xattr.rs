//! Builds the xattr area of every inode, and the area of the entries that inodes share.
//!
//! An entry that two or more inodes have is stored once (only the first 255 of an inode take part). Names are sorted, so the order in which a file system lists
//! them does not reach the image.

use std::collections::HashMap;

use super::{Node, NodeId, PerNode, WriteError, Xattr, XattrError};
use crate::erofs::layout::xattr::{self, Namespace};
use crate::erofs::layout::{BLOCK_SIZE, put};

/// Checks that EROFS can hold these xattrs of one file.
///
/// # Errors
/// The first one that it cannot hold, or their sum.
pub fn check_xattrs(xattrs: &[Xattr]) -> Result<(), XattrError> {
    if xattrs.is_empty() {
        return Ok(());
    }
    // As if nothing were shared: a shared id is never larger than its entry.
    let mut bytes = xattr::HEADER_LEN;
    for Xattr { name: full, value } in xattrs {
        let (namespace, name) =
            Namespace::split(full).ok_or_else(|| XattrError::Namespace { name: full.clone() })?;
        if name.is_empty() == namespace.named || name.len() > xattr::NAME_MAX || name.contains(&0) {
            return Err(XattrError::Name { name: full.clone() });
        }
        if value.len() > xattr::VALUE_MAX {
            return Err(XattrError::Value { name: full.clone(), len: value.len() });
        }
        bytes += xattr::entry_len(name.len(), value.len());
    }
    if bytes > xattr::AREA_MAX {
        return Err(XattrError::TooLarge { bytes });
    }
    let mut names: Vec<&[u8]> = xattrs.iter().map(|xattr| xattr.name.as_slice()).collect();
    names.sort_unstable();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(twice) => Err(XattrError::Duplicate { name: twice[0].to_vec() }),
        None => Ok(()),
    }
}

/// All xattrs in their stored form.
pub struct Areas {
    per_node: PerNode<u8>,
    /// The shared entries.
    pub shared: Vec<u8>,
}

/// How many inodes could share an entry, then its id if two or more can.
enum Use {
    Count(u32),
    Shared(u32),
}

impl Areas {
    /// Encodes the xattrs of all nodes, which [`check_xattrs`] has accepted.
    pub fn new(nodes: &[Node]) -> Result<Self, WriteError> {
        let mut uses: HashMap<&Xattr, Use> = HashMap::new();
        let mut sorted = Vec::new();
        for node in nodes {
            sort(&node.xattrs, &mut sorted);
            for xattr in sorted.iter().take(xattr::SHARED_MAX) {
                match uses.entry(xattr).or_insert(Use::Count(0)) {
                    Use::Count(count) => *count += 1,
                    Use::Shared(_) => {}
                }
            }
        }
        let shared = place_shared(&mut uses)?;
        let mut per_node = PerNode::with_capacity(nodes.len());
        for node in nodes {
            if !node.xattrs.is_empty() {
                sort(&node.xattrs, &mut sorted);
                encode_area(&sorted, &uses, &mut per_node.items);
            }
            per_node.close();
        }
        Ok(Self { per_node, shared })
    }

    /// Header, ids and entries of a node; nothing when it has no xattrs.
    pub fn of(&self, node: usize) -> &[u8] {
        self.per_node.of(node)
    }

    /// Bytes of [`Areas::of`].
    pub fn len_of(&self, node: NodeId) -> u32 {
        self.of(node.index()).len() as u32
    }
}

fn sort<'a>(xattrs: &'a [Xattr], sorted: &mut Vec<&'a Xattr>) {
    sorted.clear();
    sorted.extend(xattrs);
    sorted.sort_unstable();
}

/// Encodes every entry that is used twice, in order of name and value, and notes its id.
fn place_shared(uses: &mut HashMap<&Xattr, Use>) -> Result<Vec<u8>, WriteError> {
    let repeated = uses.iter_mut().filter(|(_, used)| matches!(used, Use::Count(2..)));
    let mut repeated: Vec<_> = repeated.map(|(xattr, used)| (*xattr, used)).collect();
    repeated.sort_unstable_by_key(|(xattr, _)| *xattr);
    let mut area = Vec::new();
    for (xattr, used) in repeated {
        let id = u32::try_from(area.len() / xattr::UNIT)
            .map_err(|_| WriteError::TooLarge { blocks: area.len() as u64 / BLOCK_SIZE })?;
        *used = Use::Shared(id);
        encode_entry(xattr, &mut area);
    }
    Ok(area)
}

fn encode_area(sorted: &[&Xattr], uses: &HashMap<&Xattr, Use>, out: &mut Vec<u8>) {
    let header = out.len();
    out.resize(header + xattr::HEADER_LEN, 0);
    // The header counts shared ids in one byte, so only so many xattrs of an inode take part in sharing.
    let (shareable, rest) = sorted.split_at(sorted.len().min(xattr::SHARED_MAX));
    let id = |xattr: &Xattr| match uses.get(xattr) {
        Some(Use::Shared(id)) => Some(*id),
        Some(Use::Count(_)) | None => None,
    };
    let mut shared = 0_u8;
    for id in shareable.iter().filter_map(|xattr| id(xattr)) {
        out.extend_from_slice(&id.to_le_bytes());
        shared += 1;
    }
    put(out, header + xattr::SHARED_COUNT, &[shared]);
    let own = shareable.iter().filter(|xattr| id(xattr).is_none());
    own.chain(rest).for_each(|xattr| encode_entry(xattr, out));
}

fn encode_entry(xattr: &Xattr, out: &mut Vec<u8>) {
    let (namespace, name) = Namespace::split(&xattr.name).expect("check_xattrs has split this name before");
    xattr::encode_entry(namespace, name, &xattr.value, out);
}
