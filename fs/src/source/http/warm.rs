//! Connections that are there before they are needed: each costs a round trip, with TLS two or three, and a mount needs several
//! as soon as it knows its root.
//!
//! There is no way to ask the client for a connection alone. So each is opened by a probe, as the specification of trustless
//! gateways has it: a HEAD for the empty identity CID, which every gateway answers from no store at all. What it
//! answers is nobody's concern.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use reqwest::Client;

use super::Gateway;
use super::client::Way;

/// Connections opened beside that of the first request. Metadata is fetched by eight requests at a time.
pub(super) const CONNECTIONS: usize = 7;
/// Who is slower to answer a probe gains nothing by it.
const LIMIT: Duration = Duration::from_secs(2);

/// Whether there is something to do yet.
#[derive(Debug)]
pub(super) struct Warm(AtomicBool);

impl Warm {
    /// Over HTTP/2, which takes TLS here, one connection serves all, and on this machine they cost nothing.
    pub(super) fn of(way: Way<'_>) -> Warm {
        Warm(AtomicBool::new(matches!(way, Way::Plain(_))))
    }

    /// Opens connections at the first request of a source: its client is new, and has none.
    pub(super) fn up(&self, client: &Client, gateway: &Gateway) {
        if !self.0.swap(false, Ordering::Relaxed) {
            return;
        }
        for _ in 0..CONNECTIONS {
            let probe = client.head(gateway.probe()).timeout(LIMIT).send();
            tokio::spawn(async move {
                if let Err(error) = probe.await {
                    tracing::debug!(error = %error.without_url(), "no connection ahead of need");
                }
            });
        }
    }
}
