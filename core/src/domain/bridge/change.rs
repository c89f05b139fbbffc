//! The steps by which a bridge is made and removed. Each can be done again, and done to what is half there.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};

use super::dnsmasq::{self, Dnsmasq};
use super::record::Stage;
use super::{BridgeError, Bridges, MAX_BRIDGES, Mode, Plan};
use crate::domain::nft::Behind;
use crate::sys::netlink::{self, Change, Cidr, Link, Netlink};

/// The kernel's random bytes (random(4)).
const RANDOM: &str = "/dev/urandom";
/// Lets the kernel pass packets from one link to another (ip-sysctl.rst).
const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";

/// What serves the bridges, by their names.
type Servers = HashMap<String, Dnsmasq>;

impl Bridges {
    /// Makes a bridge; undoes it when that fails, or when it is cancelled meanwhile.
    pub(super) async fn create_unless(
        &self,
        plan: &Plan,
        cancelled: impl Future<Output = ()>,
    ) -> Result<(), BridgeError> {
        tokio::pin!(cancelled);
        let given_up = || BridgeError::GivenUp(plan.name.to_string());
        let mut servers = tokio::select! {
            servers = self.servers.lock() => servers,
            () = &mut cancelled => return Err(given_up()),
        };
        self.forget_removed(&mut servers).await?;
        let netlink = Netlink::open().await?;
        self.refuse(&netlink, plan).await?;
        // First the record: whatever happens after it, somebody can clean up.
        self.records.write(plan, Stage::Making)?;
        let made = tokio::select! {
            biased;
            made = self.make(&netlink, plan) => made,
            () = cancelled => Err(given_up()),
        };
        let kept = made.and_then(|server| {
            servers.extend(server.map(|server| (plan.name.to_string(), server)));
            self.records.write(plan, Stage::Made)
        });
        if kept.is_err() {
            if let Some(server) = servers.remove(&*plan.name) {
                server.stop().await;
            }
            if let Err(left) = self.unmake(&netlink, plan).await {
                tracing::error!(bridge = %plan.name, error = %left, "what was made of a bridge stays");
            }
        }
        kept
    }

    /// Why a bridge cannot be made.
    async fn refuse(&self, netlink: &Netlink, plan: &Plan) -> Result<(), BridgeError> {
        let links = netlink.links().await?;
        if links.iter().any(|link| link.name == *plan.name) {
            return Err(BridgeError::Exists(plan.name.to_string()));
        }
        if links.iter().filter(|link| link.is_bridge()).count() >= MAX_BRIDGES {
            return Err(BridgeError::TooMany);
        }
        let Some(network) = plan.mode.network() else { return Ok(()) };
        let addresses = netlink.addresses(None).await?;
        let Some((index, other)) = addresses.into_iter().find(|(_, other)| other.overlaps(network)) else {
            return Ok(());
        };
        let link = links.iter().find(|link| link.index == index);
        let link = link.map_or_else(String::new, |link| link.name.clone());
        Err(BridgeError::Overlaps { network, other, link })
    }

    /// Makes what is missing of a bridge, and has it served.
    pub(super) async fn make(&self, netlink: &Netlink, plan: &Plan) -> Result<Option<Dnsmasq>, BridgeError> {
        let bridge = match netlink.link(&plan.name).await {
            Err(netlink::Error::NoLink(_)) => {
                // Without an address of its own, a bridge has that of one of its ports, and another when that port goes.
                let random = || random_address().map_err(|e| BridgeError::File(RANDOM.into(), e));
                let address = plan.address.map_or_else(random, Ok)?;
                netlink.add_bridge(&plan.name, Some(address)).await?
            }
            found => found?,
        };
        if let Some(network) = plan.mode.network()
            && !has_address(netlink, &bridge, network).await?
        {
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

    /// Starts the dnsmasq of a bridge that has one, in the place of one that a killed manager left.
    async fn serve(&self, plan: &Plan) -> Result<Option<Dnsmasq>, BridgeError> {
        let (Mode::Dnsmasq { network, .. }, Some((start, end))) = (plan.mode, plan.mode.for_dhcp()) else {
            return Ok(None);
        };
        let files = self.records.files(&plan.name);
        dnsmasq::kill_stray(&files).await;
        let server = Dnsmasq::start(dnsmasq::arguments(&plan.name, network, start, end, &files), files).await;
        server.map(Some).map_err(|why| BridgeError::Dnsmasq(plan.name.to_string(), why))
    }

    /// Removes a bridge: one of ours with all that belongs to it, another as it is.
    pub(super) async fn remove(&self, name: &str) -> Result<(), BridgeError> {
        let mut servers = self.servers.lock().await;
        let netlink = Netlink::open().await?;
        let Some((plan, _)) = self.records.read(name)? else {
            return match netlink.link(name).await {
                Ok(link) if link.is_bridge() => Ok(netlink.delete_link(&link).await?),
                Ok(_) | Err(netlink::Error::NoLink(_)) => Err(BridgeError::Missing(name.to_owned())),
                Err(e) => Err(e.into()),
            };
        };
        self.records.write(&plan, Stage::Removing)?;
        if let Some(server) = servers.remove(name) {
            server.stop().await;
        }
        self.unmake(&netlink, &plan).await
    }

    /// Removes whatever is there of a bridge, the record last.
    pub(super) async fn unmake(&self, netlink: &Netlink, plan: &Plan) -> Result<(), BridgeError> {
        dnsmasq::kill_stray(&self.records.files(&plan.name)).await;
        match netlink.link(&plan.name).await {
            Ok(link) if link.is_bridge() => netlink.delete_link(&link).await?,
            // A link of this name that is no bridge came from elsewhere.
            Ok(_) | Err(netlink::Error::NoLink(_)) => {}
            Err(e) => return Err(e.into()),
        }
        if let Some(behind) = behind(plan) {
            self.firewall.remove_network(&behind).await?;
        }
        self.records.remove(&plan.name)
    }

    /// Removes the rest of bridges whose links somebody removed by hand.
    pub(super) async fn forget_removed(&self, servers: &mut Servers) -> Result<(), BridgeError> {
        let records = self.records.all()?;
        if records.is_empty() {
            return Ok(());
        }
        let netlink = Netlink::open().await?;
        let links = netlink.links().await?;
        for (plan, _) in records {
            if links.iter().any(|link| link.is_bridge() && link.name == *plan.name) {
                continue;
            }
            tracing::warn!(bridge = %plan.name, "somebody removed the link of a bridge: the rest of it goes too");
            if let Some(server) = servers.remove(&*plan.name) {
                server.stop().await;
            }
            if let Err(error) = self.unmake(&netlink, &plan).await {
                tracing::error!(bridge = %plan.name, %error, "the rest of a bridge stays");
            }
        }
        Ok(())
    }
}

/// A hardware address that is locally administered, and of one link.
fn random_address() -> io::Result<[u8; 6]> {
    let mut address = [0; 6];
    File::open(RANDOM)?.read_exact(&mut address)?;
    address[0] = 2;
    Ok(address)
}

async fn has_address(netlink: &Netlink, link: &Link, network: Cidr) -> Result<bool, BridgeError> {
    let addresses = netlink.addresses(Some(link)).await?;
    Ok(addresses.iter().any(|(_, cidr)| *cidr == network))
}

/// What the firewall knows of a bridge; nothing of one that is a mere link.
fn behind(plan: &Plan) -> Option<Behind> {
    let network = plan.mode.network()?;
    Some(Behind { link: plan.name.to_string(), nat: plan.nat.then_some(network) })
}
