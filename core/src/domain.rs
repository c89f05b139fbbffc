//! What a node administrates. One module a domain; none knows the insides of another, and none knows a command.

pub mod bridge;
pub mod btrfs;
pub mod disk;
pub mod filesystem;
pub mod flist;
pub mod info;
pub mod ip;
pub mod nft;
pub mod process;

use std::sync::Arc;
use std::time::Duration;

use crate::paths::Paths;

/// How long the end of what runs for the domains may take; the node has five seconds for all of its end.
const STOP: Duration = Duration::from_millis(700);

/// What the domains of a node keep from one command to the next.
#[derive(Debug)]
pub struct Domains {
    /// The files that callers hold open.
    pub files: Arc<filesystem::Files>,
    /// The firewall.
    pub firewall: Arc<nft::Firewall>,
    /// The bridges.
    pub bridges: Arc<bridge::Bridges>,
}

impl Domains {
    /// Those of a node with these folders.
    pub fn new(paths: &Paths, input: nft::InputPolicy) -> Self {
        let firewall = Arc::new(nft::Firewall::new(input));
        let bridges = Arc::new(bridge::Bridges::new(paths.run().join("bridges"), firewall.clone()));
        Domains { files: Arc::default(), firewall, bridges }
    }

    /// Takes up what a manager before this one left. A node without its bridges is still one that can be commanded.
    pub async fn start(&self) {
        if let Err(error) = self.firewall.restore().await {
            tracing::error!(%error, "the firewall is not what the configuration says");
        }
        if let Err(error) = self.bridges.recover().await {
            tracing::error!(%error, "the bridges are not looked after");
        }
    }

    /// Ends what runs for the domains. What does not end in time is killed with the manager.
    pub async fn stop(&self) {
        if tokio::time::timeout(STOP, self.bridges.stop()).await.is_err() {
            tracing::warn!("what serves the bridges did not end in time");
        }
    }
}
