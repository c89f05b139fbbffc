//! The judgement of a tree before anyone else reads it, the kernel included.
//!
//! It accepts what [`write`](crate::erofs::write) emits and refuses everything odd. The idea: walk from the root, claim the
//! bytes of whatever is reached, and require in the end that no byte is claimed twice and that every unclaimed byte is
//! zero. So nothing can hide, no two records can share bytes, and the work is bounded by the image: a claim is made
//! before the bytes are looked at, and claims larger than the image together are refused at once.
//!
//! Memory is O(inodes): a bit for every 32 bytes of image, and at most two claims for each inode. There is no recursion.
//! File contents in the data devices are not looked at.

mod claims;
mod directory;
mod inode;

use std::collections::{HashMap, HashSet};

use claims::Claims;

use crate::erofs::layout::superblock::{self, Superblock};
use crate::erofs::layout::{FileKind, INODE_SLOT, Inode, Nid};
use crate::erofs::reader::{Dirent, Fault, Image, Tree, TreeError};

/// Bits in a word of the set of reached inodes.
const WORD: usize = u64::BITS as usize;

/// What a valid tree holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// All inodes.
    pub inodes: u64,
    /// Directories, the root among them.
    pub directories: u64,
    /// Regular files.
    pub files: u64,
    /// Symbolic links.
    pub symlinks: u64,
    /// Devices, pipes and sockets.
    pub others: u64,
    /// Bytes of all regular files, hardlinked ones once; `u64::MAX` when they are more (holes count).
    pub content_bytes: u64,
    /// Whether any inode has xattrs.
    pub has_xattrs: bool,
}

/// Judges a tree.
///
/// # Errors
/// The first broken rule that was seen, with the nid and the byte.
pub fn validate<B: AsRef<[u8]>>(tree: &Tree<B>) -> Result<Summary, TreeError> {
    let image = tree.image();
    if image.superblock.compat != Superblock::COMPAT {
        return Err(TreeError::Superblock {
            offset: superblock::OFFSET as u64,
            fault: Fault::UnknownFeature,
        });
    }
    let mut walk = Walk::new(image);
    walk.claims.add(image.superblock.root, superblock::OFFSET as u64, superblock::END as u64)?;
    walk.start(image.superblock.root)?;
    while let Some((dir, parent)) = walk.pending.pop() {
        walk.directory(&dir, parent)?;
    }
    walk.finish()
}

/// What is left of a hardlinked inode.
struct Links {
    kind: FileKind,
    /// Names that the inode declares and that have not been seen.
    missing: u32,
}

/// The state of a walk.
struct Walk<'a> {
    image: Image<'a>,
    /// Directories that are reached but not yet listed, and their parents.
    pending: Vec<(Inode, Nid)>,
    /// A bit for each possible nid: whether it is reached.
    reached: Vec<u64>,
    /// Inodes with more than one link, directories apart.
    links: HashMap<Nid, Links>,
    /// Shared xattrs that are claimed.
    shared_xattrs: HashSet<u32>,
    claims: Claims,
    summary: Summary,
}

impl<'a> Walk<'a> {
    fn new(image: Image<'a>) -> Self {
        Self {
            image,
            pending: Vec::new(),
            reached: vec![0; image.bytes.len() / (INODE_SLOT as usize * WORD) + 1],
            links: HashMap::new(),
            shared_xattrs: HashSet::new(),
            claims: Claims::new(image.bytes.len() as u64),
            summary: Summary::default(),
        }
    }

    fn start(&mut self, root: Nid) -> Result<(), TreeError> {
        self.mark(root);
        let inode = self.image.inode(root)?;
        if !inode.is_dir() {
            return Err(self.damaged(root, Fault::Mode));
        }
        self.inode(&inode)?;
        self.pending.push((inode, root));
        Ok(())
    }

    /// Follows an entry of `dir`, which is neither `.` nor `..`; `offset` is where it stands.
    fn reach(&mut self, dir: Nid, entry: Dirent<'_>, offset: u64) -> Result<(), TreeError> {
        let wrong_type = TreeError::Damaged { nid: dir, offset, fault: Fault::DirentType };
        if self.is_marked(entry.nid) {
            return match self.links.get_mut(&entry.nid) {
                Some(links) if links.kind != entry.kind => Err(wrong_type),
                Some(Links { missing: 0, .. }) => Err(self.damaged(entry.nid, Fault::LinkCount)),
                Some(links) => {
                    links.missing -= 1;
                    Ok(())
                }
                // A directory, or an inode with one link.
                None => Err(self.damaged(entry.nid, Fault::ReachedTwice)),
            };
        }
        let inode = self.image.inode(entry.nid)?;
        self.mark(entry.nid);
        if inode.kind() != entry.kind {
            return Err(wrong_type);
        }
        self.inode(&inode)?;
        if inode.is_dir() {
            self.pending.push((inode, dir));
            return Ok(());
        }
        match inode.nlink {
            0 => Err(self.damaged(inode.nid, Fault::LinkCount)),
            1 => Ok(()),
            more => {
                self.links.insert(inode.nid, Links { kind: inode.kind(), missing: more - 1 });
                Ok(())
            }
        }
    }

    /// The rules about the whole tree.
    fn finish(self) -> Result<Summary, TreeError> {
        // The smallest one, so that an image always gets the same error.
        if let Some(nid) = self.links.iter().filter(|(_, links)| links.missing > 0).map(|(nid, _)| *nid).min()
        {
            return Err(self.damaged(nid, Fault::LinkCount));
        }
        if self.summary.inodes != self.image.superblock.inodes {
            return Err(TreeError::Superblock {
                offset: superblock::OFFSET as u64,
                fault: Fault::InodeCount,
            });
        }
        self.claims.check(self.image.bytes)?;
        Ok(self.summary)
    }

    fn is_marked(&self, nid: Nid) -> bool {
        let word = usize::try_from(nid.0 / WORD as u64).ok().and_then(|word| self.reached.get(word));
        word.is_some_and(|word| word >> (nid.0 % WORD as u64) & 1 == 1)
    }

    /// Notes that an inode is reached; those outside the image need no note, they are refused.
    fn mark(&mut self, nid: Nid) {
        let word = usize::try_from(nid.0 / WORD as u64).ok().and_then(|word| self.reached.get_mut(word));
        if let Some(word) = word {
            *word |= 1 << (nid.0 % WORD as u64);
        }
    }

    /// A fault of an inode as a whole.
    fn damaged(&self, nid: Nid, fault: Fault) -> TreeError {
        TreeError::Damaged { nid, offset: nid.offset(), fault }
    }
}
