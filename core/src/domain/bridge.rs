//! Bridges with a network: an address, DHCP and DNS by dnsmasq, a way out by NAT.
//!
//! What the node keeps of a bridge lies in a file beside the pid and the leases of its dnsmasq, so that a manager that was
//! killed finds it again. Whatever fails while a bridge is made is undone.

mod dnsmasq;
mod plan;
mod record;

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::Mutex;

pub use plan::{Mode, Plan};

use self::dnsmasq::Dnsmasq;
use self::record::Records;
use crate::domain::nft::{Behind, Firewall, NftError};
use crate::sys::netlink::{self, Change, Cidr, Link, Netlink};

/// Most bridges of a node.
const MAX_BRIDGES: usize = 1000;
/// Lets the kernel pass packets from one link to another (ip-sysctl.rst).
const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";

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
        let links = Netlink::open().await?.links().await?;
        Ok(links.into_iter().filter(Link::is_bridge).map(|link| link.name).collect())
    }

    /// Makes a bridge.
    pub async fn create(&self, plan: &Plan) -> Result<(), BridgeError> {
        let mut servers = self.servers.lock().await;
        let netlink = Netlink::open().await?;
        let links = netlink.links().await?;
        if links.iter().any(|link| link.name == *plan.name) {
            return Err(BridgeError::Exists(plan.name.to_string()));
        }
        if links.iter().filter(|link| link.is_bridge()).count() >= MAX_BRIDGES {
            return Err(BridgeError::TooMany);
        }
        if let Some(network) = plan.mode.network() {
            refuse_overlap(&netlink, &links, network).await?;
        }
        // First the record: whatever happens after it, somebody can clean up.
        self.records.write(plan)?;
        let made = self.make(&netlink, plan).await;
        match made {
            Ok(server) => {
                servers.extend(server.map(|server| (plan.name.to_string(), server)));
                Ok(())
            }
            Err(error) => {
                if let Err(left) = self.unmake(&netlink, plan).await {
                    tracing::error!(bridge = %plan.name, error = %left, "what was made of a bridge stays");
                }
                Err(error)
            }
        }
    }

    async fn make(&self, netlink: &Netlink, plan: &Plan) -> Result<Option<Dnsmasq>, BridgeError> {
        let bridge = netlink.add_bridge(&plan.name, plan.address).await?;
        if let Some(network) = plan.mode.network() {
            netlink.add_address(&bridge, network).await?;
        }
        netlink.change(&bridge, Change::Up).await?;
        if let Some(behind) = behind(plan) {
            self.firewall.add_network(&behind).await?;
        }
        if plan.nat {
            std::fs::write(FORWARDING, "1").map_err(|e| BridgeError::File(FORWARDING.into(), e))?;
        }
        self.serve(plan).await
    }

    /// Starts the dnsmasq of a bridge that has one.
    async fn serve(&self, plan: &Plan) -> Result<Option<Dnsmasq>, BridgeError> {
        let Mode::Dnsmasq { network, start, end } = plan.mode else { return Ok(None) };
        let files = self.records.files(&plan.name);
        let server = Dnsmasq::start(dnsmasq::arguments(&plan.name, network, start, end, &files), files).await;
        server.map(Some).map_err(|why| BridgeError::Dnsmasq(plan.name.to_string(), why))
    }

    /// Removes a bridge and all that belongs to it.
    pub async fn delete(&self, name: &str) -> Result<(), BridgeError> {
        let mut servers = self.servers.lock().await;
        let netlink = Netlink::open().await?;
        let is_bridge = match netlink.link(name).await {
            Ok(link) => link.is_bridge(),
            Err(netlink::Error::NoLink(_)) => false,
            Err(e) => return Err(e.into()),
        };
        let plan = self.records.read(name)?;
        if !is_bridge && plan.is_none() {
            return Err(BridgeError::Missing(name.to_owned()));
        }
        if let Some(server) = servers.remove(name) {
            server.stop().await;
        }
        match plan {
            Some(plan) => self.unmake(&netlink, &plan).await,
            // Made by somebody else, who gave it nothing of ours.
            None => delete_link(&netlink, name).await,
        }
    }

    /// Removes whatever is there of a bridge, the record last.
    async fn unmake(&self, netlink: &Netlink, plan: &Plan) -> Result<(), BridgeError> {
        dnsmasq::kill_stray(&self.records.files(&plan.name)).await;
        delete_link(netlink, &plan.name).await?;
        if let Some(behind) = behind(plan) {
            self.firewall.remove_network(&behind).await?;
        }
        self.records.remove(&plan.name)
    }

    /// Takes up the bridges of a manager that was killed: each gets a dnsmasq again, and of those whose link is gone,
    /// the rest goes too.
    pub async fn recover(&self) -> Result<(), BridgeError> {
        let mut servers = self.servers.lock().await;
        let netlink = Netlink::open().await?;
        let links = netlink.links().await?;
        for plan in self.records.all()? {
            let there = links.iter().any(|link| link.is_bridge() && link.name == *plan.name);
            let recovered = if there {
                dnsmasq::kill_stray(&self.records.files(&plan.name)).await;
                self.serve(&plan).await.map(|server| {
                    servers.extend(server.map(|server| (plan.name.to_string(), server)));
                })
            } else {
                self.unmake(&netlink, &plan).await
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

async fn delete_link(netlink: &Netlink, name: &str) -> Result<(), BridgeError> {
    match netlink.link(name).await {
        // A link of this name that is no bridge came from elsewhere.
        Ok(link) if link.is_bridge() => Ok(netlink.delete_link(&link).await?),
        Ok(_) | Err(netlink::Error::NoLink(_)) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

async fn refuse_overlap(netlink: &Netlink, links: &[Link], network: Cidr) -> Result<(), BridgeError> {
    let addresses = netlink.addresses(None).await?;
    let Some((index, other)) = addresses.into_iter().find(|(_, other)| other.overlaps(network)) else {
        return Ok(());
    };
    let link =
        links.iter().find(|link| link.index == index).map_or_else(String::new, |link| link.name.clone());
    Err(BridgeError::Overlaps { network, other, link })
}

/// What the firewall knows of a bridge; nothing of one that is a mere link.
fn behind(plan: &Plan) -> Option<Behind> {
    let network = plan.mode.network()?;
    Some(Behind { link: plan.name.to_string(), nat: plan.nat.then_some(network) })
}

#[cfg(test)]
mod tests;
