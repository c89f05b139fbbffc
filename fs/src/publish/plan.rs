//! What an flist consists of: root and shards are fetched, and everything they name is known.

use std::collections::HashSet;
use std::pin::pin;
use std::time::{Duration, Instant};

use futures::stream::{self, StreamExt};
use g8_cache::{BlockId, Codec, MAX_STORED, Sources};

use super::PublishError;
use crate::format::{FormatError, Profile, Root, shard};

/// Shards fetched at the same time.
const PARALLEL: usize = 8;

/// Every object of an flist, each once, and of what is published beside it.
#[derive(Debug)]
pub(super) struct Plan {
    /// The flist.
    pub(super) id: BlockId,
    /// Bytes of its data blocks, as the root says.
    pub(super) data_bytes: u64,
    /// All but the data blocks as an archive has them: the root, then what it links to.
    metadata: Vec<BlockId>,
    /// A profile of it, which links to it.
    pub(super) profile: Option<BlockId>,
    /// Each shard with its blocks.
    shards: Vec<(BlockId, Vec<BlockId>)>,
}

impl Plan {
    pub(super) async fn of(
        id: BlockId,
        profile: Option<BlockId>,
        sources: &Sources,
        deadline: Duration,
    ) -> Result<Plan, PublishError> {
        if id.codec() != Codec::DagCbor {
            return Err(PublishError::NotAnFlist(id));
        }
        let invalid = |error: FormatError| PublishError::Format(id, error);
        let root = sources.fetch_verified(id, Instant::now() + deadline).await?;
        let root = Root::from_bytes(root.bytes()).map_err(invalid)?;
        if let Some(profile) = profile {
            let block = sources.fetch_verified(profile, Instant::now() + deadline).await;
            let block = block.map_err(|error| PublishError::NoProfile(profile, error))?;
            let judged = Profile::from_bytes(block.bytes())
                .and_then(|of_it| of_it.judge_for(id, usize::try_from(root.blocks).unwrap_or(usize::MAX)));
            judged.map_err(|error| PublishError::Profile(profile, error))?;
        }
        let mut seen = HashSet::from([id]);
        let mut metadata = vec![id];
        let pieces =
            root.map_pieces().map_err(invalid)?.into_iter().chain(root.tree_pieces().map_err(invalid)?);
        metadata.extend(pieces.filter(|piece| seen.insert(*piece)));
        let ids = root.shard_ids().map_err(invalid)?.into_iter().filter(|shard| seen.insert(*shard));
        let ids: Vec<BlockId> = ids.collect();
        let fetches = stream::iter(ids).map(|shard| async move {
            (shard, sources.fetch_verified(shard, Instant::now() + deadline).await)
        });
        let mut fetches = pin!(fetches.buffered(PARALLEL));
        let mut shards = Vec::new();
        let mut links = 0;
        while let Some((shard, block)) = fetches.next().await {
            let blocks = shard::decode(block?.bytes()).map_err(invalid)?;
            links += blocks.len() as u64;
            if links > root.blocks {
                break;
            }
            shards.push((shard, blocks.into_iter().filter(|block| seen.insert(*block)).collect()));
        }
        if links != root.blocks {
            let what = format!("the root claims {} blocks, its shards link to {links} or more", root.blocks);
            return Err(invalid(FormatError::field("blocks", what)));
        }
        Ok(Plan { id, data_bytes: root.stored_bytes, metadata, profile, shards })
    }

    /// What nothing else links to: the flist, and a profile of it.
    pub(super) fn roots(&self) -> Vec<BlockId> {
        [self.id].into_iter().chain(self.profile).collect()
    }

    /// Bytes of everything, at most, if the root tells the truth about its data; a reader refuses one that does not.
    pub(super) fn most_bytes(&self) -> u64 {
        let beside = self.metadata.len() + self.shards.len() + usize::from(self.profile.is_some());
        self.data_bytes.saturating_add((beside * MAX_STORED) as u64)
    }

    /// How many objects there are.
    pub(super) fn len(&self) -> usize {
        let beside = usize::from(self.profile.is_some());
        beside + self.metadata.len() + self.shards.iter().map(|(_, blocks)| 1 + blocks.len()).sum::<usize>()
    }

    /// Depth first, as an archive has them.
    pub(super) fn root_first(&self) -> Vec<BlockId> {
        let mut ids = Vec::with_capacity(self.len());
        ids.extend(&self.metadata);
        for (shard, blocks) in &self.shards {
            ids.push(*shard);
            ids.extend(blocks);
        }
        ids.extend(self.profile);
        ids
    }

    /// What is linked to before what links to it, so that whoever has the root has all.
    pub(super) fn root_last(&self) -> Vec<BlockId> {
        let mut ids: Vec<BlockId> = self.shards.iter().flat_map(|(_, blocks)| blocks).copied().collect();
        ids.extend(self.metadata[1..].iter().rev());
        ids.extend(self.shards.iter().map(|(shard, _)| shard));
        ids.push(self.id);
        ids.extend(self.profile);
        ids
    }
}
