//! An opened flist: root, tree and map, fetched, proven, decoded and judged. No data block is touched.

mod tree_bytes;

use std::io;
use std::path::Path;
use std::pin::pin;
use std::time::Instant;

use bytes::Bytes;
use futures::stream::{self, StreamExt};
use g8_cache::{BlockId, Cache, Codec, GetError, Sources};

use crate::erofs::{self, Summary, Tree, TreeError};
use crate::format::piece::Joiner;
use crate::format::{self, BlockMap, FormatError, Root};
use tree_bytes::Growing;
pub use tree_bytes::TreeBytes;

/// Metadata objects fetched at the same time.
const PARALLEL: usize = 8;

/// Why an flist cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The address is a raw block, not an flist.
    #[error("{0} is a raw block: the address of an flist begins with bafyrei")]
    NotAnFlist(BlockId),
    /// An object of it cannot be had.
    #[error("the {what} of the flist cannot be had: check the address, or name more sources with --from")]
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
    /// The tree could neither be kept in a file nor in memory.
    #[error("keeping the tree of {0}")]
    Scratch(BlockId, #[source] io::Error),
    /// The tree in it is not one.
    #[error("the tree of {0} is not valid")]
    Tree(BlockId, #[source] TreeError),
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
        let _expected = sources.expect(&id);
        let fetch = Fetch { cache, sources, deadline };
        let invalid = |e: FormatError| OpenError::Format(id, e);
        let root = Root::from_bytes(&fetch.object("root", id).await?).map_err(invalid)?;
        let mut tree = Growing::new(scratch);
        let mut tree_len = 0;
        let mut map = Vec::new();
        let scratch_failed = |e| OpenError::Scratch(id, e);
        let keep_tree = |plain: &[u8]| {
            if tree_len == 0 {
                judge_size(id, plain, root.tree_bytes)?;
            }
            tree.push(plain, tree_len).map_err(scratch_failed)?;
            tree_len += plain.len() as u64;
            Ok(())
        };
        let keep_map = |plain: &[u8]| {
            map.extend_from_slice(plain);
            Ok(())
        };
        let (tree_ids, map_ids) = (root.tree_pieces().map_err(invalid)?, root.map_pieces().map_err(invalid)?);
        futures::try_join!(
            fetch.pieces(id, "tree", tree_ids, root.tree_bytes, keep_tree),
            fetch.pieces(id, "map", map_ids, root.map_bytes, keep_map),
        )?;
        let tree = Tree::open(tree.finish().map_err(scratch_failed)?).map_err(|e| OpenError::Tree(id, e))?;
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
}

/// Gets metadata objects for one image.
struct Fetch<'a> {
    cache: &'a Cache,
    sources: &'a Sources,
    deadline: Instant,
}

impl Fetch<'_> {
    async fn object(&self, what: &'static str, id: BlockId) -> Result<Bytes, OpenError> {
        let object = self.cache.get_object(id, self.sources, self.deadline).await;
        object.map(|o| o.bytes().clone()).map_err(|source| OpenError::Get { what, source })
    }

    /// Fetches pieces, a few at a time, and hands their plain bytes to `keep` in order. No more than `total` bytes
    /// are ever decoded, and only the few that are under way are held stored.
    async fn pieces(
        &self,
        image: BlockId,
        what: &'static str,
        ids: Vec<BlockId>,
        total: u64,
        mut keep: impl FnMut(&[u8]) -> Result<(), OpenError>,
    ) -> Result<(), OpenError> {
        let invalid = |e: FormatError| OpenError::Format(image, e);
        let mut joiner = Joiner::new(what, total);
        let mut stored = pin!(stream::iter(ids).map(|id| self.object(what, id)).buffered(PARALLEL));
        while let Some(piece) = stored.next().await {
            let plain = joiner.push(&piece?).map_err(invalid)?;
            keep(&plain)?;
        }
        joiner.finish().map_err(invalid)
    }
}

/// The first piece holds the superblock, which says how large the tree is: a root that claims more is not worth more
/// fetching.
fn judge_size(id: BlockId, first_piece: &[u8], claimed: u64) -> Result<(), OpenError> {
    let declared = erofs::declared_len(first_piece).ok_or(OpenError::Tree(id, TreeError::NotErofs))?;
    if declared == claimed {
        return Ok(());
    }
    let reason = format!("its superblock says {declared} bytes, the root {claimed}");
    Err(OpenError::Format(id, FormatError::field("tree", reason)))
}
