//! Checking an flist: every object that its root reaches is fetched from the sources, proven, decoded and judged.
//!
//! The cache is not asked, so what is found is what the sources hold. A problem does not end the check: all of them
//! are reported, each with the object it concerns.

use std::collections::HashSet;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::stream::{self, StreamExt};
use g8_cache::{BlockId, Cache, CacheConfig, Codec, Sources};
use serde::Serialize;

use crate::erofs::{self, Tree};
use crate::format::piece::Joiner;
use crate::format::{self, BlockMap, FormatError, Root, shard};

/// Objects fetched at the same time.
const PARALLEL: usize = 8;

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The object it concerns; the root for what concerns the whole.
    pub object: BlockId,
    /// What it is: `root`, `shard`, `tree`, `map` or `block`.
    pub kind: &'static str,
    /// What is wrong.
    pub what: String,
}

/// What a check found.
#[derive(Clone, Debug, Serialize)]
pub struct CheckReport {
    /// The flist.
    pub cid: BlockId,
    /// Objects that were proven.
    pub objects: u64,
    /// Their stored bytes.
    pub bytes: u64,
    /// Everything that is wrong, metadata first.
    pub problems: Vec<Problem>,
}

/// How far a check is, for a progress bar.
#[derive(Debug, Default)]
pub struct CheckProgress {
    /// Objects to prove; 0 until it is known.
    pub total: AtomicU64,
    /// Objects done.
    pub done: AtomicU64,
}

/// Checks the flist `id`; each object may take `deadline`.
pub async fn check(
    id: BlockId,
    sources: &Sources,
    deadline: Duration,
    progress: &CheckProgress,
) -> CheckReport {
    let report = CheckReport { cid: id, objects: 0, bytes: 0, problems: Vec::new() };
    let mut run = Run { sources, deadline, progress, report };
    if let Some(root) = run.root(id).await {
        run.below(&root).await;
    }
    run.report
}

struct Run<'a> {
    sources: &'a Sources,
    deadline: Duration,
    progress: &'a CheckProgress,
    report: CheckReport,
}

impl Run<'_> {
    fn problem(&mut self, object: BlockId, kind: &'static str, what: impl ToString) {
        self.report.problems.push(Problem { object, kind, what: what.to_string() });
    }

    async fn root(&mut self, id: BlockId) -> Option<Root> {
        if id.codec() != Codec::DagCbor {
            self.problem(id, "root", "is a raw block, not an flist");
            return None;
        }
        let mut bytes = None;
        self.objects("root", &[id], |object| {
            bytes = Some(object.clone());
            Ok(())
        })
        .await;
        Root::from_bytes(&bytes?).map_err(|e| self.problem(id, "root", e)).ok()
    }

    async fn below(&mut self, root: &Root) {
        let id = self.report.cid;
        let (Ok(shards), Ok(tree), Ok(map)) = (root.shard_ids(), root.tree_pieces(), root.map_pieces())
        else {
            return self.problem(id, "root", "has links of the wrong kind");
        };
        let metadata = 1 + shards.len() + tree.len() + map.len();
        self.progress.total.store(metadata as u64 + root.blocks, Ordering::Relaxed);
        let links = self.shards(&shards).await;
        let tree = self.tree(root, &tree).await;
        let map = self.map(root, &map, tree.as_ref()).await;
        let described = map.as_ref().map(|map| (0..map.block_count() as u32).map(|n| map.block_id(n)));
        let described: Option<Vec<BlockId>> = described.map(Iterator::collect);
        if let (Some(links), Some(described)) = (&links, &described)
            && links != described
        {
            self.problem(id, "shard", "the shards do not name exactly the blocks of the block table");
        }
        let Some(blocks) = described.or(links) else { return };
        // A block that the table describes in two ways is decoded in both.
        let described = |n| map.as_ref().map(|map| (map.block(n).plain_len(), map.block(n).frames()));
        let mut seen = HashSet::new();
        let numbered: Vec<(u32, BlockId)> =
            (0..).zip(blocks).filter(|(n, block)| seen.insert((*block, described(*n)))).collect();
        self.blocks(&numbered, map.as_ref()).await;
    }

    async fn shards(&mut self, ids: &[BlockId]) -> Option<Vec<BlockId>> {
        let mut links = Vec::new();
        let whole = self.objects("shard", ids, |object| {
            links.append(&mut shard::decode(object)?);
            Ok(())
        });
        whole.await.then_some(links)
    }

    /// What the pieces hold, joined; never more than `total` bytes.
    async fn pieces(&mut self, kind: &'static str, ids: &[BlockId], total: u64) -> Option<Vec<u8>> {
        let mut joiner = Joiner::new(kind, total);
        let mut joined = Vec::new();
        let whole = self.objects(kind, ids, |object| {
            joined.append(&mut joiner.push(object)?);
            Ok(())
        });
        if !whole.await {
            return None;
        }
        let id = self.report.cid;
        joiner.finish().map_err(|e| self.problem(id, kind, e)).ok()?;
        Some(joined)
    }

    async fn tree(&mut self, root: &Root, ids: &[BlockId]) -> Option<Tree<Vec<u8>>> {
        let bytes = self.pieces("tree", ids, root.tree_bytes).await?;
        let id = self.report.cid;
        let tree = Tree::open(bytes).map_err(|e| self.problem(id, "tree", e)).ok()?;
        let summary = erofs::validate(&tree).map_err(|e| self.problem(id, "tree", e)).ok()?;
        if (summary.inodes, summary.content_bytes) != (root.inodes, root.content_bytes) {
            self.problem(id, "root", "counts other inodes or contents than the tree has");
        }
        Some(tree)
    }

    async fn map(&mut self, root: &Root, ids: &[BlockId], tree: Option<&Tree<Vec<u8>>>) -> Option<BlockMap> {
        let bytes = self.pieces("map", ids, root.map_bytes).await?;
        let id = self.report.cid;
        // Without the tree the sizes of its spaces are not known, and the map cannot be judged.
        let map = format::map::decode(&bytes, tree?.devices());
        let map = map.map_err(|e| self.problem(id, "map", e)).ok()?;
        if (map.block_count() as u64, map.stored_bytes()) != (root.blocks, root.stored_bytes) {
            self.problem(id, "root", "counts other blocks than the map has");
        }
        Some(map)
    }

    /// Proves every block; decodes those that the map describes.
    async fn blocks(&mut self, blocks: &[(u32, BlockId)], map: Option<&BlockMap>) {
        let (sources, deadline, progress) = (self.sources, self.deadline, self.progress);
        let outcomes = stream::iter(blocks).map(|(number, id)| async move {
            let fetched = sources.fetch_verified(*id, Instant::now() + deadline).await;
            progress.done.fetch_add(1, Ordering::Relaxed);
            let block = match fetched {
                Ok(block) => block,
                Err(e) => return (*id, Err(e.to_string())),
            };
            let decoded = match map {
                Some(map) => block.decode_block(&map.block(*number)).map(drop),
                None => Ok(()),
            };
            (*id, decoded.map(|()| block.bytes().len() as u64).map_err(|e| e.to_string()))
        });
        let outcomes: Vec<_> = outcomes.buffered(PARALLEL).collect().await;
        for (id, outcome) in outcomes {
            match outcome {
                Ok(bytes) => self.count(bytes),
                Err(what) => self.problem(id, "block", what),
            }
        }
    }

    /// Proves metadata objects and hands them to `take` in order, holding a few at a time; says whether all were there
    /// and taken. After the first one that is not, the others are only proven.
    async fn objects(
        &mut self,
        kind: &'static str,
        ids: &[BlockId],
        mut take: impl FnMut(&Bytes) -> Result<(), FormatError>,
    ) -> bool {
        let (sources, deadline) = (self.sources, self.deadline);
        let fetches = stream::iter(ids)
            .map(|id| async move { (*id, sources.fetch_verified(*id, Instant::now() + deadline).await) });
        let mut fetches = pin!(fetches.buffered(PARALLEL));
        let mut whole = true;
        while let Some((id, outcome)) = fetches.next().await {
            self.progress.done.fetch_add(1, Ordering::Relaxed);
            match outcome {
                Ok(block) => {
                    self.count(block.bytes().len() as u64);
                    if whole && let Err(e) = take(block.bytes()) {
                        self.problem(id, kind, e);
                        whole = false;
                    }
                }
                Err(e) => {
                    self.problem(id, kind, e);
                    whole = false;
                }
            }
        }
        whole
    }

    fn count(&mut self, bytes: u64) {
        self.report.objects += 1;
        self.report.bytes += bytes;
    }
}

/// A cache that keeps nothing on the disk, for commands that read an image once.
pub fn memory_cache(memory_budget: u64) -> Result<Cache, g8_cache::OpenError> {
    Cache::open(CacheConfig { dir: None, disk_budget: 0, free_floor: 0, memory_budget })
}
