//! Names of gateways that a stranger named: they lead to public addresses or nowhere.
//!
//! The look-up for a connection is the one that is judged, so a name cannot lead elsewhere a moment later. One address that
//! is not public condemns the name: whoever runs its DNS tries something.

use std::net::SocketAddr;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::reference::public;

/// Most addresses of a name that are looked at.
const MAX_ADDRESSES: usize = 64;

/// See the module's text.
pub(super) struct PublicOnly;

impl Resolve for PublicOnly {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            // The port is that of the URL; the connector puts it in.
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let found: Vec<SocketAddr> = found.take(MAX_ADDRESSES).collect();
            found.iter().try_for_each(|address| public::judge(address.ip()))?;
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}
