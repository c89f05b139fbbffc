//! `ipfs:URL`: a node's RPC as a source. It is asked for one block at a time and trusted in nothing.
//!
//! The node is first asked for what it has, which kubo answers at once, and then to look for it among its peers for the rest of
//! a try. What its answers mean:
//!
//! | answer | is |
//! |---|---|
//! | 200 | the bytes, still to be proven |
//! | 500 and "not found", from a node that looked everywhere | the block is not there |
//! | 500 with other words, out of time, no answer | not available now: asked again |
//! | 429, 503 with `Retry-After` | busy: asked again when it says, at the latest after 10 s |
//! | HTML, a login, no such call, a bad certificate | no RPC: not asked again for this read |

use std::time::Duration;

use async_trait::async_trait;
use g8_cache::{BlockId, FetchError, MAX_STORED, Origin, StoredBlock, TooLarge};

use super::http::ClientError;
use crate::ipfs::{Node, Reach, RpcAddress, RpcError};

/// How long a node may look into its own store, and then among its peers. Together they are less than the 10 s after which the
/// cache gives a try up.
const LOCAL: Duration = Duration::from_secs(2);
const ANYWHERE: Duration = Duration::from_secs(6);
/// Most that a node may ask us to wait.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// A node as one of the sources of a mount.
#[derive(Debug)]
pub(super) struct IpfsSource {
    spec: String,
    node: Node,
}

impl IpfsSource {
    pub(super) fn new(address: &RpcAddress) -> Result<Self, ClientError> {
        Ok(IpfsSource { spec: format!("ipfs:{address}"), node: Node::new(address)? })
    }
}

#[async_trait]
impl Origin for IpfsSource {
    fn spec(&self) -> &str {
        &self.spec
    }

    fn keep(&self) -> bool {
        true
    }

    fn is_remote(&self) -> bool {
        true
    }

    async fn fetch(&self, id: &BlockId) -> Result<StoredBlock, FetchError> {
        let bytes = match self.node.block(id, Reach::Local, LOCAL).await {
            Err(error) if error.is_missing() || error.is_late() => {
                self.node.block(id, Reach::Anywhere, ANYWHERE).await
            }
            other => other,
        };
        Ok(StoredBlock::new(*id, bytes.map_err(|error| meaning(id, error))?)?)
    }
}

/// What an error of the node is to who wants a block.
fn meaning(id: &BlockId, error: RpcError) -> FetchError {
    match error {
        error if error.is_missing() => FetchError::NotFound,
        RpcError::Busy { wait: Some(wait), .. } => FetchError::Busy(wait.min(WAIT_MAX)),
        RpcError::TooMuch { .. } => FetchError::TooLarge(TooLarge { id: *id, len: MAX_STORED as u64 + 1 }),
        RpcError::Unknown { .. }
        | RpcError::Locked { .. }
        | RpcError::Unaskable { .. }
        | RpcError::Untrusted { .. }
        | RpcError::NotAnRpc { .. } => FetchError::unfit(error),
        RpcError::Gone { .. }
        | RpcError::Silent { .. }
        | RpcError::Busy { .. }
        | RpcError::Refused { .. }
        | RpcError::CutShort { .. } => FetchError::unavailable(error),
    }
}
