//! `peer:`, the neighbours on the local network: whoever announces a gateway there by mDNS and DNS-SD (RFC 6762, 6763).
//!
//! The source itself has no blocks. It has a `browser` put every neighbour it finds into the list of sources behind itself, as
//! a trustless gateway with a standing of its own (`neighbour`), and take it out when it goes. As long as there is none, a
//! read waits for one. `announce` is the other end.
//!
//! All that comes from the network is hostile: names are never shown, addresses must be on one of our own links
//! (`address`), their number is bounded, and what a neighbour gives is proven like the bytes of any source.

mod address;
mod announce;
mod browser;
mod neighbour;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use g8_cache::{BlockId, FetchError, Origin, Sources, StoredBlock};

pub use announce::{AnnounceError, Announcement};
use browser::Browser;

/// Type of the service in DNS-SD.
const SERVICE: &str = "_g8os-flist._tcp.local.";
/// Version of what is spoken, in the TXT record.
const VERSION: (&str, &str) = ("v", "1");
/// The spec of the source, and what those of its neighbours begin with.
pub(super) const SPEC: &str = "peer:";
/// How long a try waits for the first neighbour; a read tries again until its deadline.
const FIRST: Duration = Duration::from_secs(1);
/// For so long after the first question more neighbours may answer: questions go out at once, after one second and after
/// three (RFC 6762, 5.2). Until then one that lacks a block, or lies, is not the last word.
const SETTLED: Duration = Duration::from_secs(4);

/// Why neighbours cannot be looked for.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// No thread, or no descriptors.
    #[error("neighbours cannot be looked for")]
    Start(#[source] std::io::Error),
    /// The mDNS library refuses.
    #[error("neighbours cannot be looked for by mDNS")]
    Mdns(#[source] mdns_sd::Error),
}

/// The place in a list behind which its neighbours are.
pub(super) struct PeerSource(Arc<Browser>);

impl PeerSource {
    pub(super) fn new() -> Result<Self, PeerError> {
        Browser::of_process().map(PeerSource)
    }
}

/// Whether a spec is that of `peer:` or of one of its neighbours.
pub(crate) fn is_neighbour(spec: &str) -> bool {
    spec.starts_with(SPEC)
}

/// Puts neighbours into `sources` from here on, if it has a `peer:`.
pub(super) fn follow(sources: &Sources) -> Result<(), PeerError> {
    if sources.list().iter().any(|source| **source.spec() == *SPEC) {
        Browser::of_process()?.follow(sources);
    }
    Ok(())
}

#[async_trait]
impl Origin for PeerSource {
    fn spec(&self) -> &str {
        SPEC
    }

    async fn fetch(&self, _: &BlockId) -> Result<StoredBlock, FetchError> {
        let mut count = self.0.count();
        match tokio::time::timeout(FIRST, count.wait_for(|count| *count > 0)).await {
            // They are asked themselves, and those that are found meanwhile at once.
            Ok(Ok(_)) => Err(match SETTLED.checked_sub(self.0.began().elapsed()) {
                Some(wait) => FetchError::Busy(wait),
                None => FetchError::NotFound,
            }),
            Ok(Err(_)) | Err(_) => Err(FetchError::unavailable(
                "no neighbour on the local network has answered: is `flist serve --announce` running on one?",
            )),
        }
    }

    fn keep(&self) -> bool {
        true
    }

    fn is_remote(&self) -> bool {
        true
    }
}
