//! What a node administrates. One module a domain; none knows the insides of another, and none knows a command.

pub mod bridge;
pub mod btrfs;
pub mod container;
pub mod container_net;
pub mod disk;
pub mod filesystem;
pub mod flist;
pub mod info;
pub mod ip;
pub mod nft;
pub mod process;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use self::bridge::BridgeError;
use crate::config::Config;
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
    /// The networks of containers.
    pub networks: Arc<container_net::Networks>,
    /// What callers have mounted.
    pub flists: Arc<flist::Noted>,
}

impl Domains {
    /// Those of a node with these folders.
    pub fn new(paths: &Paths, config: &Config) -> Result<Self, BridgeError> {
        let firewall = Arc::new(nft::Firewall::new(config.firewall.input));
        let bridges = Arc::new(bridge::Bridges::new(paths.run().join("bridges"), firewall.clone()));
        let (folder, network) = (paths.run().join("networks"), config.network.containers.0);
        let networks = container_net::Networks::new(folder, network, bridges.clone(), firewall.clone())?;
        let flists = Arc::new(flist::Noted::new(paths.run().join("mounts")));
        Ok(Domains { files: Arc::default(), firewall, bridges, networks: Arc::new(networks), flists })
    }

    /// Takes up what a manager before this one left, and the networks of the containers that live. A node without its
    /// bridges is still one that can be commanded.
    pub async fn start(&self, containers: &BTreeSet<container_net::Id>) {
        if let Err(error) = self.firewall.restore().await {
            tracing::error!(%error, "the firewall is not what the configuration says");
        }
        if let Err(error) = self.bridges.recover().await {
            tracing::error!(%error, "the bridges are not looked after");
        }
        if let Err(error) = self.networks.recover(containers).await {
            tracing::error!(%error, "the networks of containers are not looked after");
        }
    }

    /// Ends what runs for the domains. What does not end in time is killed with the manager.
    pub async fn stop(&self) {
        let stop = async {
            if let Err(error) = self.networks.stop().await {
                tracing::error!(%error, "the default bridge stays");
            }
            self.bridges.stop().await;
        };
        if tokio::time::timeout(STOP, stop).await.is_err() {
            tracing::warn!("what serves the bridges did not end in time");
        }
    }
}
