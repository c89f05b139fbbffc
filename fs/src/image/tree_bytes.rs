//! Where the bytes of a tree lie: in a private file that the kernel may drop from memory and read again, or, where that
//! does not work, on the heap.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::Path;

use memmap2::Mmap;

/// The bytes of a tree.
#[derive(Debug)]
pub enum TreeBytes {
    /// In memory.
    Heap(Vec<u8>),
    /// In an unlinked file.
    Mapped(Mmap, File),
}

impl TreeBytes {
    /// The file, which the kernel can mount.
    pub fn file(&self) -> Option<&File> {
        match self {
            TreeBytes::Heap(_) => None,
            TreeBytes::Mapped(_, file) => Some(file),
        }
    }
}

impl AsRef<[u8]> for TreeBytes {
    fn as_ref(&self) -> &[u8] {
        match self {
            TreeBytes::Heap(bytes) => bytes,
            TreeBytes::Mapped(map, _) => map,
        }
    }
}

/// A tree that arrives piece by piece.
pub(super) enum Growing {
    Heap(Vec<u8>),
    File(File),
}

impl Growing {
    /// An empty tree, in a file without a name below `folder` where that works.
    pub(super) fn new(folder: Option<&Path>) -> Growing {
        let Some(folder) = folder else { return Growing::Heap(Vec::new()) };
        match tempfile::tempfile_in(folder) {
            Ok(file) => Growing::File(file),
            Err(error) => {
                tracing::warn!(folder = %folder.display(), %error, "a tree goes to the heap");
                Growing::Heap(Vec::new())
            }
        }
    }

    /// The next bytes. A full disk only costs memory.
    pub(super) fn push(&mut self, bytes: &[u8], so_far: u64) -> io::Result<()> {
        if let Growing::File(file) = self {
            match file.write_all(bytes) {
                Ok(()) => return Ok(()),
                Err(error) => {
                    tracing::warn!(%error, "a tree goes on on the heap");
                    let mut heap = Vec::new();
                    file.rewind()?;
                    file.take(so_far).read_to_end(&mut heap)?;
                    *self = Growing::Heap(heap);
                }
            }
        }
        if let Growing::Heap(heap) = self {
            heap.extend_from_slice(bytes);
        }
        Ok(())
    }

    pub(super) fn finish(self) -> io::Result<TreeBytes> {
        match self {
            Growing::Heap(bytes) => Ok(TreeBytes::Heap(bytes)),
            // SAFETY: the file has no name, and nobody writes to its only descriptor from here on.
            Growing::File(file) => Ok(TreeBytes::Mapped(unsafe { Mmap::map(&file)? }, file)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_is_the_same_in_a_file_and_on_the_heap() {
        let dir = tempfile::tempdir().unwrap();
        for folder in [None, Some(dir.path()), Some(Path::new("/nonexistent"))] {
            let mut tree = Growing::new(folder);
            tree.push(b"one ", 0).unwrap();
            tree.push(b"two", 4).unwrap();
            assert_eq!(tree.finish().unwrap().as_ref(), b"one two");
        }
    }
}
