//! Bridges with a network: an address, DHCP and DNS by dnsmasq, a way out by NAT.
//!
//! What the node keeps of a bridge lies in a file beside the pid and the leases of its dnsmasq, so that a manager that was
//! killed finds it again. Whatever fails while a bridge is made is undone.

mod dnsmasq;
mod plan;
mod record;

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
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
/// The kernel's random bytes (random(4)).
const RANDOM: &str = "/dev/urandom";
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

/// The dnsmasq of each bridge that has one.
type Servers = HashMap<String, Dnsmasq>;

/// The bridges of a node. They are made and removed one at a time.
#[derive(Debug)]
pub struct Bridges {
    firewall: Arc<Firewall>,
    records: Records,
    servers: Mutex<Servers>,
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

    /// What a bridge of ours is; `None` when somebody else made it, or nobody.
    pub fn find(&self, name: &str) -> Result<Option<Plan>, BridgeError> {
        self.records.read(name)
    }

    /// Makes a bridge, unless it is there and just that.
    pub async fn ensure(&self, plan: &Plan) -> Result<(), BridgeError> {
        // Both questions with the lock: a bridge that is being made has a record, and no link yet.
        let mut servers = self.servers.lock().await;
        if self.find(&plan.name)?.as_ref() == Some(plan) {
            let netlink = Netlink::open().await?;
            match netlink.link(&plan.name).await {
                Ok(_) => return Ok(()),
                // Somebody removed the link alone.
                Err(netlink::Error::NoLink(_)) => self.remove(&netlink, &mut servers, plan).await?,
                Err(e) => return Err(e.into()),
            }
        }
        self.create_in_turn(&mut servers, plan).await
    }

    /// Makes a bridge.
    pub async fn create(&self, plan: &Plan) -> Result<(), BridgeError> {
        self.create_in_turn(&mut *self.servers.lock().await, plan).await
    }

    async fn create_in_turn(&self, servers: &mut Servers, plan: &Plan) -> Result<(), BridgeError> {
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
        // Without an address of its own, a bridge has that of one of its ports, and another one when that port goes.
        let address = match plan.address {
            Some(address) => address,
            None => random_address().map_err(|e| BridgeError::File(RANDOM.into(), e))?,
        };
        let bridge = netlink.add_bridge(&plan.name, Some(address)).await?;
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
        let Mode::Dnsmasq { network, .. } = plan.mode else { return Ok(None) };
        let Some((start, end)) = plan.mode.for_dhcp() else { return Ok(None) };
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
        match plan {
            Some(plan) => self.remove(&netlink, &mut servers, &plan).await,
            // Made by somebody else, who gave it nothing of ours.
            None => delete_link(&netlink, name).await,
        }
    }

    async fn remove(&self, netlink: &Netlink, servers: &mut Servers, plan: &Plan) -> Result<(), BridgeError> {
        if let Some(server) = servers.remove(&*plan.name) {
            server.stop().await;
        }
        self.unmake(netlink, plan).await
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
                self.take_up(&plan, &mut servers).await
            } else {
                self.unmake(&netlink, &plan).await
            };
            if let Err(error) = recovered {
                tracing::error!(bridge = %plan.name, %error, "a bridge is not what it was");
            }
        }
        Ok(())
    }

    async fn take_up(&self, plan: &Plan, servers: &mut Servers) -> Result<(), BridgeError> {
        dnsmasq::kill_stray(&self.records.files(&plan.name)).await;
        if let Some(server) = self.serve(plan).await? {
            servers.insert(plan.name.to_string(), server);
        }
        // Somebody may have removed all rules.
        if let Some(behind) = behind(plan) {
            self.firewall.add_network(&behind).await?;
        }
        Ok(())
    }

    /// Ends what serves the bridges; the bridges stay. For the end of the node.
    pub async fn stop(&self) {
        let servers: Vec<Dnsmasq> = self.servers.lock().await.drain().map(|(_, server)| server).collect();
        futures::future::join_all(servers.into_iter().map(Dnsmasq::stop)).await;
    }
}

/// A hardware address that is locally administered, and of one link.
fn random_address() -> io::Result<[u8; 6]> {
    let mut address = [0; 6];
    File::open(RANDOM)?.read_exact(&mut address)?;
    address[0] = 2;
    Ok(address)
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
