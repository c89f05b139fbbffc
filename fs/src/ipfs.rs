//! An IPFS node of somebody's own, spoken to over its RPC (kubo's `/api/v0`): blocks, imports, pins and names.
//!
//! The crate `ipfs-api-backend-hyper` has the calls; `bounded` is the way that they go, one for all: connections that are kept, and
//! bounds of bytes and time for everything. Only what a CAR is imported with is not the crate's. Nodes name blocks in many spellings,
//! so a CID that comes back is parsed and never compared as text.

mod address;
mod answer;
mod block;
mod bounded;
mod error;
mod identity;
mod import;
mod names;
mod pins;

use ipfs_api_backend_hyper::{IpfsClient, TryFromUri};
use reqwest::Client;

use crate::source::{self, ClientError, Way};

pub use address::{BadRpcAddress, RpcAddress};
pub use block::{Presence, Reach};
pub use error::RpcError;
pub use identity::Version;
pub use import::{Sent, Told, Verdict};
pub use names::Key;

/// A node. A clone shares its connections.
#[derive(Clone)]
pub struct Node {
    address: RpcAddress,
    http: Client,
    library: IpfsClient,
}

impl Node {
    /// A node at `address`; nobody is asked yet.
    pub fn new(address: &RpcAddress) -> Result<Node, ClientError> {
        let library = IpfsClient::from_str(&address.to_string());
        let library = library.expect("what one parser of URLs wrote the other one reads");
        let library = match address.credentials() {
            Some((user, password)) => library.with_credentials(user, password),
            None => library,
        };
        let way = if address.is_encrypted() { Way::EncryptedRpc } else { Way::Rpc };
        Ok(Node { address: address.clone(), http: source::client(way)?, library })
    }

    /// Where it is, for people.
    pub fn address(&self) -> &RpcAddress {
        &self.address
    }
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Node").field(&self.address).finish()
    }
}

/// A CID in any spelling, as a block of ours.
fn block_id(text: &str) -> Option<g8_cache::BlockId> {
    g8_cache::BlockId::try_from(&cid::Cid::try_from(text).ok()?).ok()
}
