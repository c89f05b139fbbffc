//! A DAG as a stream: a CAR ([`crate::car`]) with every block once, depth first.
//!
//! A root links to map, tree and shards in that order, so whoever reads the stream of an flist has its metadata before
//! its contents. A few blocks are fetched ahead; a node's links are known when it is here, so nothing is fetched past one.

use std::collections::HashSet;
use std::pin::Pin;

use bytes::Bytes;
use futures::stream::{self, FuturesOrdered, StreamExt};
use g8_cache::{BadId, BlockId, Class, Codec, GetError, VerifiedBlock};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use ipld_core::codec::Links;
use serde_ipld_dagcbor::codec::DagCborCodec;
use tokio::sync::OwnedSemaphorePermit;

use super::answer::Body;
use super::stock::Stock;
use crate::car;

/// Blocks fetched ahead.
const AHEAD: usize = 8;
/// Blocks of one CAR: its walk remembers each. So many are a quarter of a terabyte.
const MAX_BLOCKS: usize = 1 << 20;

/// Why a stream ends before its end. The client sees a body that was cut off.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    /// A block below the root cannot be had.
    #[error(transparent)]
    Get(#[from] GetError),
    /// A node is not dag-cbor.
    #[error("node {0} is not dag-cbor")]
    Node(BlockId),
    /// It links to what no source can have.
    #[error("node {0} links to a strange block")]
    Link(BlockId, #[source] BadId),
    /// There are too many.
    #[error("the CAR has more than {MAX_BLOCKS} blocks")]
    TooMany,
}

fn prefix(block: &VerifiedBlock) -> Bytes {
    car::prefix(&block.id(), block.bytes().len()).into()
}

type Fetch = Pin<Box<dyn Future<Output = Result<VerifiedBlock, GetError>> + Send>>;

/// A walk over a DAG.
pub(super) struct Walk {
    stock: Stock,
    /// What comes next is last.
    waiting: Vec<BlockId>,
    seen: HashSet<BlockId>,
    flying: FuturesOrdered<Fetch>,
    /// Whether a node is among those: what follows it is not known yet.
    at_node: bool,
    _turn: OwnedSemaphorePermit,
}

impl Walk {
    pub(super) fn new(stock: &Stock, turn: OwnedSemaphorePermit) -> Walk {
        Walk {
            stock: stock.clone(),
            waiting: Vec::new(),
            seen: HashSet::new(),
            flying: FuturesOrdered::new(),
            at_node: false,
            _turn: turn,
        }
    }

    /// The CAR of `root`, alone or with all below it.
    pub(super) fn stream(mut self, root: &VerifiedBlock, all: bool) -> Body {
        let head = [car::header(&[root.id().cid()]).into(), prefix(root), root.bytes().clone()];
        self.seen.insert(root.id());
        let begun = if all { self.expand(root) } else { Ok(()) };
        let rest = stream::try_unfold((self, begun), |(mut walk, begun)| async move {
            let next = match begun {
                Ok(()) => walk.next().await,
                Err(broken) => Err(broken),
            };
            match next {
                Ok(Some(block)) => Ok(Some((block, (walk, Ok(()))))),
                Ok(None) => Ok(None),
                Err(broken) => {
                    tracing::warn!(error = %broken, "a CAR ends early");
                    // hyper drops what it holds when a body fails. In this pause it sends it: the blocks so far are right.
                    tokio::task::yield_now().await;
                    Err(broken)
                }
            }
        });
        let rest = rest.flat_map(|section: Result<VerifiedBlock, Broken>| {
            stream::iter(match section {
                Ok(block) => vec![Ok(prefix(&block)), Ok(block.bytes().clone())],
                Err(broken) => vec![Err(broken)],
            })
        });
        let frames = stream::iter(head.map(Ok)).chain(rest).map(|bytes| bytes.map(Frame::data));
        StreamBody::new(frames).boxed_unsync()
    }

    async fn next(&mut self) -> Result<Option<VerifiedBlock>, Broken> {
        while self.flying.len() < AHEAD && !self.at_node {
            let Some(id) = self.waiting.pop() else { break };
            if !self.seen.insert(id) {
                continue;
            }
            if self.seen.len() > MAX_BLOCKS {
                return Err(Broken::TooMany);
            }
            self.at_node = id.codec() == Codec::DagCbor;
            let stock = self.stock.clone();
            self.flying.push_back(Box::pin(async move { stock.get(id, Class::ReadAhead).await }));
        }
        let Some(block) = self.flying.next().await.transpose()? else { return Ok(None) };
        if block.id().codec() == Codec::DagCbor {
            self.at_node = false;
            self.expand(&block)?;
        }
        Ok(Some(block))
    }

    /// The links of a node are next.
    fn expand(&mut self, node: &VerifiedBlock) -> Result<(), Broken> {
        if node.id().codec() == Codec::Raw {
            return Ok(());
        }
        let links = DagCborCodec::links(node.bytes()).map_err(|_| Broken::Node(node.id()))?;
        let ids: Result<Vec<_>, _> = links.map(|cid| BlockId::try_from(&cid)).collect();
        let ids = ids.map_err(|bad| Broken::Link(node.id(), bad))?;
        if self.waiting.len() + ids.len() > MAX_BLOCKS {
            return Err(Broken::TooMany);
        }
        self.waiting.extend(ids.into_iter().rev());
        Ok(())
    }
}
