//! Following a mutable name of the network: the nodes of the sources say what it stands for, and where it last led is kept.
//!
//! All nodes are asked at once and the first answer counts. When none has one in time, the name leads where it last did, and
//! whoever asked is told so.

use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt};
use g8_cache::BlockId;

use super::Hints;
use crate::ipfs::{Node, RpcError};
use crate::names::{Entry, Kind, Names, NamesError};

/// Where a name leads.
#[derive(Debug)]
pub struct Followed {
    /// The flist.
    pub id: BlockId,
    /// Why that is only what was known before.
    pub stale: Option<FollowError>,
    /// Why it could not be kept for later.
    pub forgotten: Option<NamesError>,
}

/// Why nobody knows where a name leads.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// There is no node to ask.
    #[error(
        "name {0} takes an IPFS node to resolve: name one with --from ipfs:URL, ipfs: is the one on this machine"
    )]
    NoNode(String),
    /// The nodes do not know.
    #[error("name {name} cannot be resolved: {to}")]
    Unresolved {
        /// The name.
        name: String,
        /// Who was asked last.
        to: String,
        /// What it said.
        #[source]
        source: RpcError,
    },
    /// What was known before cannot be read.
    #[error(transparent)]
    Names(#[from] NamesError),
}

/// Asks `nodes` for `limit` where `name` leads, else what `names` knows of it.
pub async fn follow(
    name: &str,
    nodes: &[Node],
    names: Option<&Names>,
    limit: Duration,
) -> Result<Followed, FollowError> {
    let error = match ask(name, nodes, limit).await {
        Ok(id) => {
            let entry = Entry::now(id, Hints::default());
            let kept = names.map_or(Ok(()), |names| names.set(Kind::Ipns, name, &entry));
            return Ok(Followed { id, stale: None, forgotten: kept.err() });
        }
        Err(error) => error,
    };
    match names.map(|names| names.get(Kind::Ipns, name)).transpose()?.flatten() {
        Some(known) => Ok(Followed { id: known.id, stale: Some(error), forgotten: None }),
        None => Err(error),
    }
}

async fn ask(name: &str, nodes: &[Node], limit: Duration) -> Result<BlockId, FollowError> {
    let mut answers: FuturesUnordered<_> =
        nodes.iter().map(|node| async move { (node, node.resolve(name, limit).await) }).collect();
    let mut error = FollowError::NoNode(name.to_owned());
    while let Some((node, answer)) = answers.next().await {
        match answer {
            Ok(id) => return Ok(id),
            Err(source) => {
                let to = format!("ipfs:{}", node.address());
                error = FollowError::Unresolved { name: name.to_owned(), to, source };
            }
        }
    }
    Err(error)
}
