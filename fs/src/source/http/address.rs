//! Where a gateway is. It may hold credentials (`https://user:password@host`), which are sent to it and shown to nobody.

use std::fmt;
use std::str::FromStr;

use g8_cache::BlockId;
use url::{Host, Url};

use crate::reference::public::{self, NotPublic};

/// Stands for an address that the client knows.
pub(super) const NEIGHBOUR: &str = "neighbour";

/// The base URL of a gateway.
#[derive(Clone, PartialEq, Eq)]
pub struct Gateway(Url);

/// Why a URL is not that of a gateway.
#[derive(Debug, thiserror::Error)]
pub enum BadAddress {
    /// No URL. The text is not repeated: credentials may be in it.
    #[error("the URL of a source is not valid: write http://HOST[:PORT] or https://HOST[:PORT]")]
    Syntax(#[source] url::ParseError),
    /// Another scheme.
    #[error("the URL of a source begins with http:// or https://")]
    Scheme,
    /// More than a place.
    #[error(
        "source {0} has a query or a fragment: a source is the place where /ipfs/ begins, such as https://HOST"
    )]
    More(Gateway),
}

impl Gateway {
    /// A place without an address, where a connection is made by other means.
    pub(super) fn nowhere() -> Gateway {
        Gateway(Url::parse("http://localhost/").expect("it is a URL"))
    }

    /// A place whose address the client knows: one with a scope, as IPv6 has on a link, is no part of a URL.
    pub(super) fn at_port(port: u16) -> Gateway {
        Gateway(Url::parse(&format!("http://{NEIGHBOUR}:{port}/")).expect("it is a URL"))
    }

    /// The URL of a block, with credentials.
    pub(super) fn block(&self, id: &BlockId) -> Url {
        self.below(&id.to_string(), "format=raw")
    }

    /// The URL of a block with all that it links to, with credentials.
    pub(super) fn car(&self, id: &BlockId) -> Url {
        self.below(&id.to_string(), "format=car")
    }

    /// The URL of the empty identity CID, which every gateway has, with credentials.
    pub(super) fn probe(&self) -> Url {
        self.below("bafkqaaa", "format=raw")
    }

    fn below(&self, cid: &str, query: &str) -> Url {
        let mut url = self.0.clone();
        url.set_path(&format!("{}ipfs/{cid}", url.path()));
        url.set_query(Some(query));
        url
    }

    /// Whether it has a user's name or password in it.
    pub fn has_credentials(&self) -> bool {
        !self.0.username().is_empty() || self.0.password().is_some()
    }

    /// Refuses an address that is not public; where a name leads shows only when it is connected to.
    pub fn judge(&self) -> Result<(), NotPublic> {
        judge(&self.0)
    }

    /// Whether it is asked over TLS.
    pub(super) fn is_encrypted(&self) -> bool {
        self.0.scheme() == "https"
    }

    /// The whole URL, with credentials: for other processes of ours, not for people.
    pub fn with_credentials(&self) -> &str {
        self.0.as_str()
    }
}

/// The same for any URL.
pub(super) fn judge(url: &Url) -> Result<(), NotPublic> {
    match url.host() {
        Some(Host::Ipv4(address)) => public::judge(address.into()),
        Some(Host::Ipv6(address)) => public::judge(address.into()),
        Some(Host::Domain(_)) | None => Ok(()),
    }
}

impl FromStr for Gateway {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<Self, BadAddress> {
        let mut url = Url::parse(text).map_err(BadAddress::Syntax)?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(BadAddress::Scheme);
        }
        let has_more = url.query().is_some() || url.fragment().is_some();
        // One place has one spelling.
        url.set_path(&format!("{}/", url.path().trim_end_matches('/')));
        if has_more {
            url.set_query(None);
            url.set_fragment(None);
            return Err(BadAddress::More(Gateway(url)));
        }
        Ok(Gateway(url))
    }
}

impl fmt::Display for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut url = self.0.clone();
        // They fail for URLs without a host only.
        let _ = url.set_username("").and_then(|()| url.set_password(None));
        f.write_str(url.as_str().trim_end_matches('/'))
    }
}

impl fmt::Debug for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use g8_cache::Codec;

    use super::*;

    #[test]
    fn credentials_are_sent_and_never_shown() {
        let gateway: Gateway = "https://me:secret@example.org:8443/below".parse().unwrap();
        assert_eq!(gateway.to_string(), "https://example.org:8443/below");
        assert_eq!(format!("{gateway:?}"), "https://example.org:8443/below");
        let id = BlockId::of(Codec::Raw, b"hello");
        let url = format!("https://me:secret@example.org:8443/below/ipfs/{id}?format=raw");
        assert_eq!(gateway.block(&id).as_str(), url);
        assert_eq!(gateway.with_credentials().parse::<Gateway>().unwrap(), gateway);
        for bad in [
            "https://me:secret@:99999/",
            "https://me:secret@host/?a=b",
            "https://me:secret@host/#a",
            "ftp://me:secret@host",
        ] {
            let error = bad.parse::<Gateway>().unwrap_err();
            let told = format!("{error} {error:?}");
            assert!(!told.contains("secret") && !told.contains("me:"), "{told}");
        }
    }

    #[test]
    fn a_base_with_and_without_slash_is_the_same_place() {
        let one: Gateway = "http://127.0.0.1:8080".parse().unwrap();
        assert_eq!(one, "http://127.0.0.1:8080/".parse().unwrap());
        assert_eq!(one, "http://127.0.0.1:8080//".parse().unwrap());
        assert_eq!(one.to_string(), "http://127.0.0.1:8080");
        assert!(!one.is_encrypted());
    }
}
