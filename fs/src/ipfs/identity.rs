//! What a node is, and whom it knows.

use std::time::Duration;

use ipfs_api_backend_hyper::{IpfsApi, request};
use ipfs_api_prelude::Backend;
use multiaddr::{Multiaddr, Protocol};
use serde::Deserialize;

use super::Node;
use super::bounded::SOON;
use super::error::{RpcError, shown};

/// What a node says it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// As it writes it, shortened where it is long.
    pub number: String,
    /// Whether it is written in Go: kubo names the compiler, js-ipfs has none.
    pub is_go: bool,
}

impl Version {
    /// Whether pins have names: kubo from 0.26 on. js-ipfs counts its versions from 0.1 to 0.18.
    pub fn names_pins(&self) -> bool {
        let mut parts = self.number.split(['.', '-']).map_while(|part| part.parse::<u64>().ok());
        (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) >= (0, 26)
    }

    /// Whether it says at once that it lacks a block. js-ipfs does not know `offline` there, and asks the network until its
    /// time is over.
    pub fn says_what_it_lacks(&self) -> bool {
        self.is_go
    }
}

impl Node {
    /// Its version, which also tells whether there is a node at all.
    pub async fn version(&self) -> Result<Version, RpcError> {
        match self.within(SOON).version().await {
            Ok(said) => Ok(Version { number: shown(&said.version), is_go: said.golang.is_some() }),
            // Every node has this one.
            Err(RpcError::Unknown { call }) => Err(RpcError::strange(call, "it has no such call")),
            Err(error) => Err(error),
        }
    }

    /// Connects it to the peer at the multiaddress `peer`. It is met already where it is that peer itself: nodes refuse that.
    pub async fn connect(&self, peer: &str, limit: Duration) -> Result<(), RpcError> {
        match self.within(limit).swarm_connect(peer).await {
            Err(error @ RpcError::Refused { .. }) => match self.is(peer, limit).await {
                true => Ok(()),
                false => Err(error),
            },
            Err(error) => Err(error),
            Ok(_) => Ok(()),
        }
    }

    /// Whether `peer` is its own address, as far as it says who it is.
    async fn is(&self, peer: &str, limit: Duration) -> bool {
        /// Kubo no longer says the version of a protocol, which the library's type has to have.
        #[derive(Deserialize)]
        struct Said {
            #[serde(rename = "ID")]
            id: String,
        }
        let said: Result<Said, _> = self.within(limit).request(request::Id { peer: None }, None).await;
        said.is_ok_and(|said| {
            peer_id(&format!("/p2p/{}", said.id)).is_some_and(|id| peer_id(peer) == Some(id))
        })
    }
}

/// Whom an address leads to.
fn peer_id(address: &str) -> Option<multiaddr::PeerId> {
    match address.parse::<Multiaddr>().ok()?.pop()? {
        Protocol::P2p(id) => Some(id),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_have_names_from_kubo_0_26_on() {
        for (version, names) in [
            ("0.18.1", false),
            ("0.25.0", false),
            ("0.26.0", true),
            ("0.40.0-dev", true),
            ("1.0.0", true),
            ("", false),
        ] {
            let version = Version { number: version.into(), is_go: true };
            assert_eq!(version.names_pins(), names, "{version:?}");
        }
    }
}
