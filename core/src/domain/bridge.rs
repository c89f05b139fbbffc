//! Bridges with a network: an address, DHCP and DNS by dnsmasq, a way out by NAT.
//!
//! What the node keeps of a bridge lies in a file beside the pid and the leases of its dnsmasq: what it is, and whether it is
//! being made, made, or being removed. So whatever happens at any step, somebody brings it to an end: who makes a bridge
//! undoes it when that fails, or when nobody waits for it any more; a removal goes on whoever waits; and what a manager left
//! that was killed, the next one undoes or completes. A bridge whose link somebody removed by hand is none any more: the rest of
//! it goes when the bridges are looked at next.

mod change;
mod dnsmasq;
mod plan;
mod record;

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::{Mutex, oneshot};

pub use plan::{Mode, Plan};

use self::dnsmasq::Dnsmasq;
use self::record::{Records, Stage};
use crate::domain::nft::{Firewall, NftError};
use crate::sys::netlink::{self, Cidr, Link, Netlink};

/// Most bridges of a node.
const MAX_BRIDGES: usize = 1000;

/// Why there is no such bridge, or still one.
#[derive(Debug, thiserror::Error)]
pub enum BridgeError {
    /// What was asked for contradicts itself.
    #[error("{0}")]
    Plan(String),
    /// A link of this name is there.
    #[error("a link {0} is there already")]
    Exists(String),
    /// There is none of this name.
    #[error("no bridge {0}")]
    Missing(String),
    /// Another link has addresses of the same network.
    #[error("network {network} overlaps with {other} on {link}")]
    Overlaps {
        /// What was asked for.
        network: Cidr,
        /// What is there.
        other: Cidr,
        /// Where.
        link: String,
    },
    /// Nobody waits for it any more.
    #[error("bridge {0} is not made: nobody waits for it any more")]
    GivenUp(String),
    /// Enough.
    #[error("the node has {MAX_BRIDGES} bridges, and makes no more")]
    TooMany,
    /// The kernel says no.
    #[error(transparent)]
    Netlink(#[from] netlink::Error),
    /// The firewall stays as it is.
    #[error(transparent)]
    Firewall(#[from] NftError),
    /// dnsmasq does not serve.
    #[error("dnsmasq does not serve {0}: {1}")]
    Dnsmasq(String, String),
    /// A file of a bridge.
    #[error("{0}")]
    File(PathBuf, #[source] io::Error),
}

/// The bridges of a node. They are made and removed one at a time.
#[derive(Debug)]
pub struct Bridges {
    firewall: Arc<Firewall>,
    records: Records,
    servers: Mutex<HashMap<String, Dnsmasq>>,
}

impl Bridges {
    /// The bridges whose files lie in `folder`.
    pub fn new(folder: PathBuf, firewall: Arc<Firewall>) -> Self {
        Bridges { firewall, records: Records::new(folder), servers: Mutex::default() }
    }

    /// Names of all bridges of the node, whoever made them.
    pub async fn list(&self) -> Result<Vec<String>, BridgeError> {
        // What is being made or removed is looked at by who does it.
        if let Ok(mut servers) = self.servers.try_lock() {
            self.forget_removed(&mut servers).await?;
        }
        let links = Netlink::open().await?.links().await?;
        Ok(links.into_iter().filter(Link::is_bridge).map(|link| link.name).collect())
    }

    /// What a bridge of ours is; `None` when somebody else made it, or nobody.
    pub fn find(&self, name: &str) -> Result<Option<Plan>, BridgeError> {
        let record = self.records.read(name)?;
        Ok(record.filter(|(_, stage)| *stage == Stage::Made).map(|(plan, _)| plan))
    }

    /// Makes a bridge, unless it is there and just that.
    pub async fn ensure(self: &Arc<Self>, plan: &Plan) -> Result<(), BridgeError> {
        // With the lock, nobody is just making or removing it.
        let servers = self.servers.lock().await;
        if self.find(&plan.name)?.as_ref() == Some(plan) {
            match Netlink::open().await?.link(&plan.name).await {
                Ok(_) => return Ok(()),
                // Somebody removed the link alone, and whoever makes it removes the rest.
                Err(netlink::Error::NoLink(_)) => {}
                Err(e) => return Err(e.into()),
            }
        }
        drop(servers);
        match self.create(plan).await {
            // Somebody was faster.
            Err(BridgeError::Exists(_)) if self.find(&plan.name)?.as_ref() == Some(plan) => Ok(()),
            made => made,
        }
    }

    /// Makes a bridge. When this is dropped, what was made of it is undone.
    pub async fn create(self: &Arc<Self>, plan: &Plan) -> Result<(), BridgeError> {
        let (mut reply, answer) = oneshot::channel();
        let (bridges, plan) = (self.clone(), plan.clone());
        let name = plan.name.to_string();
        tokio::spawn(async move {
            let made = bridges.create_unless(&plan, reply.closed()).await;
            let is_made = made.is_ok();
            if reply.send(made).is_err() && is_made {
                tracing::warn!(bridge = %plan.name, "nobody waits for the bridge: it is removed");
                if let Err(error) = bridges.remove(&plan.name).await {
                    tracing::error!(bridge = %plan.name, %error, "what was made of a bridge stays");
                }
            }
        });
        answer.await.unwrap_or(Err(BridgeError::GivenUp(name)))
    }

    /// Removes a bridge and all that belongs to it. Once begun, it goes on when this is dropped.
    pub async fn delete(self: &Arc<Self>, name: &str) -> Result<(), BridgeError> {
        let (bridges, name) = (self.clone(), name.to_owned());
        let removal = tokio::spawn(async move {
            let removed = bridges.remove(&name).await;
            if let Err(error) = &removed {
                tracing::warn!(bridge = name, %error, "a bridge is not removed");
            }
            removed
        });
        removal.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
    }

    /// Takes up the bridges of a manager that was killed. Those that were made are put right; the others go.
    pub async fn recover(&self) -> Result<(), BridgeError> {
        let mut servers = self.servers.lock().await;
        self.forget_removed(&mut servers).await?;
        let netlink = Netlink::open().await?;
        for (plan, stage) in self.records.all()? {
            let recovered = match stage {
                Stage::Made => self.make(&netlink, &plan).await.map(|server| {
                    servers.extend(server.map(|server| (plan.name.to_string(), server)));
                }),
                Stage::Making | Stage::Removing => self.unmake(&netlink, &plan).await,
            };
            if let Err(error) = recovered {
                tracing::error!(bridge = %plan.name, %error, "a bridge is not what it was");
            }
        }
        Ok(())
    }

    /// Ends what serves the bridges; the bridges stay. For the end of the node.
    pub async fn stop(&self) {
        let servers: Vec<Dnsmasq> = self.servers.lock().await.drain().map(|(_, server)| server).collect();
        futures::future::join_all(servers.into_iter().map(Dnsmasq::stop)).await;
    }
}

#[cfg(test)]
mod tests;
