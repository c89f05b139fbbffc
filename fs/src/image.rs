//! An opened flist: root, tree and map, fetched, proven, decoded and judged. No data block is touched.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::time::Instant;

use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use g8_cache::{BlockId, Cache, Codec, GetError, Sources};
use memmap2::Mmap;

use crate::erofs::{self, Summary, Tree, TreeError};
use crate::format::{self, BlockMap, FormatError, Root, piece};

/// Metadata objects fetched at the same time.
const PARALLEL: usize = 8;

/// Why an flist cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The address is a raw block, not an flist.
    #[error("{0} is a raw block: the address of an flist begins with bafyrei")]
    NotAnFlist(BlockId),
    /// An object of it cannot be had.
    #[error("{what} of the flist")]
    Get {
        /// Which object.
        what: &'static str,
        /// Why not.
        #[source]
        source: GetError,
    },
    /// The address is right but what it names is not an flist.
    #[error("{0} is not a valid flist")]
    Format(BlockId, #[source] FormatError),
    /// The tree in it is not one.
    #[error("the tree of {0} is not valid")]
    Tree(BlockId, #[source] TreeError),
}

/// The bytes of a tree: on the heap, or a private file that the kernel may drop from memory and read again.
#[derive(Debug)]
pub enum TreeBytes {
    /// In memory.
    Heap(Vec<u8>),
    /// In an unlinked file.
    Mapped(Mmap),
}

impl AsRef<[u8]> for TreeBytes {
    fn as_ref(&self) -> &[u8] {
        match self {
            TreeBytes::Heap(bytes) => bytes,
            TreeBytes::Mapped(map) => map,
        }
    }
}

/// An opened flist.
#[derive(Debug)]
pub struct Image {
    /// Its address.
    pub id: BlockId,
    /// Its root node.
    pub root: Root,
    /// All metadata of its files.
    pub tree: Tree<TreeBytes>,
    /// What the validator counted in the tree.
    pub summary: Summary,
    /// Where the contents are.
    pub map: BlockMap,
}

impl Image {
    /// Opens the flist `id`. With `scratch`, a folder, the tree is mapped from a file there instead of the heap.
    pub async fn open(
        id: BlockId,
        cache: &Cache,
        sources: &Sources,
        scratch: Option<&Path>,
        deadline: Instant,
    ) -> Result<Image, OpenError> {
        if id.codec() != Codec::DagCbor {
            return Err(OpenError::NotAnFlist(id));
        }
        let get = |what, id: BlockId| async move {
            let object = cache.get_object(id, sources, deadline).await;
            object.map(|o| o.bytes().clone()).map_err(|source| OpenError::Get { what, source })
        };
        let invalid = |e: FormatError| OpenError::Format(id, e);
        let root = Root::from_bytes(&get("root", id).await?).map_err(invalid)?;
        let pieces = |what, ids: Vec<BlockId>| async move {
            let fetches = stream::iter(ids).map(|id| get(what, id)).buffered(PARALLEL);
            fetches.try_collect::<Vec<Bytes>>().await
        };
        let (tree, map) = futures::try_join!(
            pieces("tree", root.tree_pieces().map_err(invalid)?),
            pieces("map", root.map_pieces().map_err(invalid)?),
        )?;
        let tree = piece::decode("tree", &tree, root.tree_bytes).map_err(invalid)?;
        let map = piece::decode("map", &map, root.map_bytes).map_err(invalid)?;
        let tree = Tree::open(place_tree(tree, scratch)).map_err(|e| OpenError::Tree(id, e))?;
        let summary = erofs::validate(&tree).map_err(|e| OpenError::Tree(id, e))?;
        let map = format::map::decode(&map, tree.devices()).map_err(invalid)?;
        let image = Image { id, root, tree, summary, map };
        image.judge().map_err(invalid)?;
        Ok(image)
    }

    /// What the root says about the rest must be so.
    fn judge(&self) -> Result<(), FormatError> {
        let claims = [
            ("blocks", self.root.blocks, self.map.block_count() as u64),
            ("stored_bytes", self.root.stored_bytes, self.map.stored_bytes()),
            ("inodes", self.root.inodes, self.summary.inodes),
            ("content_bytes", self.root.content_bytes, self.summary.content_bytes),
        ];
        for (what, claimed, real) in claims {
            if claimed != real {
                return Err(FormatError::field(what, format!("the root claims {claimed}, there are {real}")));
            }
        }
        Ok(())
    }

    /// Every data block that the shards name, in order; fetches the shards.
    pub async fn shard_links(
        &self,
        cache: &Cache,
        sources: &Sources,
        deadline: Instant,
    ) -> Result<Vec<BlockId>, OpenError> {
        let mut links = Vec::new();
        for shard in self.root.shard_ids().map_err(|e| OpenError::Format(self.id, e))? {
            let object = cache.get_object(shard, sources, deadline).await;
            let bytes = object.map_err(|source| OpenError::Get { what: "shard", source })?;
            links.extend(format::shard::decode(bytes.bytes()).map_err(|e| OpenError::Format(self.id, e))?);
        }
        Ok(links)
    }
}

/// Puts the tree into a private file where that works; a full disk only costs memory.
fn place_tree(tree: Vec<u8>, folder: Option<&Path>) -> TreeBytes {
    let Some(folder) = folder else { return TreeBytes::Heap(tree) };
    match map_tree(&tree, folder) {
        Ok(map) => TreeBytes::Mapped(map),
        Err(error) => {
            tracing::warn!(folder = %folder.display(), %error, "the tree stays on the heap");
            TreeBytes::Heap(tree)
        }
    }
}

fn map_tree(tree: &[u8], folder: &Path) -> io::Result<Mmap> {
    let mut file: File = tempfile::tempfile_in(folder)?;
    file.write_all(tree)?;
    // SAFETY: the file has no name and its only descriptor ends here, so nobody can change it under the map.
    unsafe { Mmap::map(&file) }
}
