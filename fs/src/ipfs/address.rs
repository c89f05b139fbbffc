//! Where the RPC of a node is. It may hold credentials (`http://user:password@host:5001`), which are sent to it and shown to
//! nobody.

use std::fmt;
use std::str::FromStr;

use percent_encoding::percent_decode_str;
use url::Url;

/// The node that `ipfs:` alone means: the one of this machine, as it comes.
const LOCAL: &str = "http://127.0.0.1:5001";
/// The base URL of an RPC.
#[derive(Clone, PartialEq, Eq)]
pub struct RpcAddress(Url);

/// Why a URL is not that of an RPC. The text is not repeated where credentials may be in it.
#[derive(Debug, thiserror::Error)]
pub enum BadRpcAddress {
    /// No URL.
    #[error(
        "the URL of an IPFS node is not valid: write ipfs:http://HOST:PORT, or ipfs: for the node on this machine"
    )]
    Syntax(#[source] url::ParseError),
    /// Another scheme.
    #[error(
        "the URL of an IPFS node begins with http:// or https://: write ipfs:http://HOST:PORT, without the CID"
    )]
    Scheme,
    /// More than a place.
    #[error(
        "{0} has a path, a query or a fragment: the URL of an IPFS node is the place where /api/v0 begins"
    )]
    More(RpcAddress),
}

impl RpcAddress {
    pub(super) fn is_encrypted(&self) -> bool {
        self.0.scheme() == "https"
    }

    /// User and password, if there are any.
    pub(super) fn credentials(&self) -> Option<(String, String)> {
        let plain = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let user = self.0.username();
        (!user.is_empty() || self.0.password().is_some())
            .then(|| (plain(user), plain(self.0.password().unwrap_or_default())))
    }

    /// The whole URL, with credentials: for other processes of ours, not for people.
    pub fn with_credentials(&self) -> &str {
        self.0.as_str()
    }

    fn bare(&self) -> Url {
        let mut url = self.0.clone();
        // They fail for URLs without a host only.
        let _ = url.set_username("").and_then(|()| url.set_password(None));
        url
    }
}

impl FromStr for RpcAddress {
    type Err = BadRpcAddress;

    fn from_str(text: &str) -> Result<Self, BadRpcAddress> {
        let mut url =
            Url::parse(if text.is_empty() { LOCAL } else { text }).map_err(BadRpcAddress::Syntax)?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
            return Err(BadRpcAddress::Scheme);
        }
        let has_more = url.query().is_some() || url.fragment().is_some();
        let has_path = !matches!(url.path(), "" | "/" | "/api/v0" | "/api/v0/");
        url.set_query(None);
        url.set_fragment(None);
        url.set_path("/");
        let address = RpcAddress(url);
        if has_more || has_path { Err(BadRpcAddress::More(address)) } else { Ok(address) }
    }
}

impl fmt::Display for RpcAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.bare().as_str().trim_end_matches('/'))
    }
}

impl fmt::Debug for RpcAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_has_a_place_and_credentials_that_nobody_sees() {
        let local: RpcAddress = "".parse().unwrap();
        assert_eq!(local.to_string(), "http://127.0.0.1:5001");
        let node: RpcAddress = "http://me:se%40cret@host/api/v0".parse().unwrap();
        assert_eq!(format!("{node} {node:?}"), "http://host http://host");
        assert_eq!(node.credentials().unwrap(), ("me".into(), "se@cret".into()));
        assert_eq!(node.with_credentials().parse::<RpcAddress>().unwrap(), node);
        for (address, encrypted) in [("http://[::1]:5002", false), ("https://node.example.org", true)] {
            let node: RpcAddress = address.parse().unwrap();
            assert_eq!((node.to_string().as_str(), node.is_encrypted()), (address, encrypted));
        }
    }

    #[test]
    fn what_is_no_place_of_a_node_is_refused_without_its_credentials() {
        for bad in [
            "https://me:secret@host/below",
            "http://me:secret@host/below",
            "http://me:secret@host?a=b",
            "ftp://me:secret@host",
            "http://me:secret@host:99999",
            "//bafyreid",
        ] {
            let error = bad.parse::<RpcAddress>().unwrap_err();
            let told = format!("{error} {error:?}");
            assert!(!told.contains("secret") && !told.contains("me:"), "{told}");
        }
    }
}
