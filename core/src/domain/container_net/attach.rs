//! Making the network of a container: a straight list of steps.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use super::record::Record;
use super::{Attached, Id, NetworkError, Networks, port};
use crate::sys::netlink::{self, Change, Netlink, Veth};

/// Lets packets of the loopback pass a bridge (ip-sysctl.rst), so that 127.0.0.1 can be forwarded.
pub(super) fn route_localnet(bridge: &str) -> String {
    format!("/proc/sys/net/ipv4/conf/{bridge}/route_localnet")
}

/// Lets the kernel pass packets from one link to another (ip-sysctl.rst).
const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";

impl Networks {
    /// Makes the network that was reserved for a container. `netns` is its network namespace, with nothing but a loopback
    /// in it. When it fails, nothing is left, the reservation neither; and it is done to its end also when the caller does
    /// not wait for that.
    pub async fn attach(self: &Arc<Self>, id: Id, netns: OwnedFd) -> Result<Attached, NetworkError> {
        let networks = self.clone();
        let made = tokio::spawn(async move { networks.attach_here(id, netns.as_fd()).await });
        made.await.map_err(|e| NetworkError::Interrupted(id, e))?
    }

    pub(super) async fn attach_here(
        self: &Arc<Self>,
        id: Id,
        netns: BorrowedFd<'_>,
    ) -> Result<Attached, NetworkError> {
        let turn = self.state.lock().entries.get(&id).map(|entry| entry.turn.clone());
        let _turn = turn.ok_or(NetworkError::Released(id))?.lock_owned().await;
        // Whoever had the turn may have released it.
        let record = self.state.lock().entries.get(&id).map(|entry| entry.record.clone());
        let record = record.ok_or(NetworkError::Released(id))?;
        match self.make(&record, netns).await {
            Ok(()) => Ok(Attached::from(&record)),
            Err(error) => {
                if let Err(left) = self.unmake(&record, Duration::ZERO).await {
                    tracing::error!(container = id, error = %left, "what was made of a network stays until it is released");
                }
                Err(error)
            }
        }
    }

    async fn make(&self, record: &Record, netns: BorrowedFd<'_>) -> Result<(), NetworkError> {
        // Ports lead to a NIC.
        if record.nics.is_empty() {
            return Ok(());
        }
        let netlink = Netlink::open().await?;
        // First what somebody else may have, and costs nothing to give back.
        self.step("hold its ports").await?;
        self.hold(record).await?;
        for nic in &record.nics {
            self.step("make a NIC").await?;
            let bridge = netlink.link(&nic.bridge).await?;
            let veth = Veth {
                name: &nic.link,
                address: nic.link_hardware,
                controller: bridge.index,
                mtu: bridge.mtu,
                netns,
                peer: &nic.name,
                peer_address: nic.hardware,
            };
            netlink.add_veth(&veth).await?;
        }
        self.inside(record, netns).await?;
        // Last what lets others in: now there is somebody to answer.
        if let Some(target) = &record.target {
            self.step("lead its own ports back to it").await?;
            for nic in record.nics.iter().filter(|nic| nic.bridge == target.bridge) {
                netlink.change(&netlink.link(&nic.link).await?, Change::Hairpin).await?;
            }
            self.forward().await?;
            self.step("let others in").await?;
            write(FORWARDING, "1")?;
            // After the rules that keep others from using it.
            write(&route_localnet(&target.bridge), "1")?;
        }
        Ok(())
    }

    /// Takes the ports of the node, on which nobody may listen.
    pub(super) async fn hold(&self, record: &Record) -> Result<(), NetworkError> {
        let held = port::hold(&record.ports).await?;
        match self.state.lock().entries.get_mut(&record.id) {
            Some(entry) => entry.held = held,
            None => return Err(NetworkError::Released(record.id)),
        }
        Ok(())
    }

    /// What the container sees: its loopback, its addresses, its way out.
    async fn inside(&self, record: &Record, netns: BorrowedFd<'_>) -> Result<(), NetworkError> {
        self.step("enter its network namespace").await?;
        let netlink = Netlink::open_in(netns).await?;
        let links = netlink.links().await?;
        let find = |name: &str| {
            let found = links.iter().find(|link| link.name == name);
            found.ok_or_else(|| netlink::Error::NoLink(format!("{name} in the container")))
        };
        netlink.change(find("lo")?, Change::Up).await?;
        for nic in &record.nics {
            self.step("raise a NIC").await?;
            let link = find(&nic.name)?;
            netlink.change(link, Change::Up).await?;
            if let Some(address) = nic.address {
                netlink.add_address(link, address).await?;
            }
        }
        let way_out = record.nics.iter().find_map(|nic| Some((nic, nic.gateway?)));
        if let Some((nic, gateway)) = way_out {
            self.step("give it a way out").await?;
            netlink.add_route(find(&nic.name)?, None, Some(gateway)).await?;
        }
        Ok(())
    }
}

/// Writes a setting of the kernel.
pub(super) fn write(path: &str, value: &str) -> Result<(), NetworkError> {
    std::fs::write(path, value).map_err(|e| NetworkError::File(path.into(), e))
}
