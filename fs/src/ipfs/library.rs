//! What is asked of a node once it is known to be one: keys and peers, by `ipfs-api-backend-hyper`. Its version, which tells that, is asked by `call`.
//!
//! The library waits for ever and reads answers of any length, so each call is given up after a time, and the node is told
//! to do the same. That time is also all that bounds what an answer costs: the first call to a stranger, and what may last, go
//! by `call` instead, which bounds both.

use std::time::Duration;

use ipfs_api_backend_hyper::{BackendWithGlobalOptions, Error, GlobalOptions, IpfsApi, IpfsClient};

use serde::Deserialize;

use super::Node;
use super::error::{RpcError, shown};

/// How long a node may take for what costs it nothing.
pub(super) const SOON: Duration = Duration::from_secs(10);
/// How much longer we wait than the node is told.
const MARGIN: Duration = Duration::from_millis(500);

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
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Said {
            version: String,
            #[serde(default)]
            golang: Option<String>,
        }
        const CALL: &str = "version";
        match self.ask::<Said>(CALL, &[], SOON).await {
            Ok(said) => Ok(Version { number: shown(&said.version), is_go: said.golang.is_some() }),
            // Every node has this one.
            Err(RpcError::Unknown { .. }) => Err(RpcError::strange(CALL, "it has no such call")),
            Err(error) => Err(error),
        }
    }

    /// Connects it to the peer at the multiaddress `peer`.
    pub async fn connect(&self, peer: &str, limit: Duration) -> Result<(), RpcError> {
        within("swarm/connect", limit, self.limited(limit).swarm_connect(peer)).await.map(drop)
    }

    pub(super) fn limited(&self, limit: Duration) -> BackendWithGlobalOptions<IpfsClient> {
        let options = GlobalOptions { offline: None, timeout: Some(limit) };
        BackendWithGlobalOptions::new(self.library.clone(), options)
    }
}

/// A call of the library, with an end.
pub(super) async fn within<T>(
    call: &'static str,
    limit: Duration,
    answer: impl Future<Output = Result<T, Error>>,
) -> Result<T, RpcError> {
    let waited = limit + MARGIN;
    let answer = tokio::time::timeout(waited, answer).await.map_err(|_| RpcError::Silent { call, waited })?;
    answer.map_err(|error| match error {
        Error::Api(said) => RpcError::Refused { call, message: shown(&said.message) },
        Error::Client(error) => RpcError::gone(call, error),
        Error::Http(error) => RpcError::strange(call, error),
        // No JSON where there should be some; the library does not tell the status.
        Error::IpfsClientError(error) => RpcError::strange(call, error),
    })
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
