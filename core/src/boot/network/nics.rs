//! The NICs of a machine, and which of them something is plugged into.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::NetworkError;
use super::edge::wanted;
use super::plan::Plan;
use crate::sys::netlink::{self, Change, Link, Netlink};

/// Links by their indexes and names; of a NIC whether it has a carrier, and how often something was plugged in.
pub type Seen = BTreeMap<(u32, String), Option<(bool, u32)>>;

/// NICs of one kind: hardware, which has no kind, and whatever tests put in its place.
#[derive(Clone, Copy, Debug)]
pub struct Nics {
    /// The kind.
    pub kind: &'static str,
    /// How long a NIC that was set up may take to find out whether something is plugged in.
    pub patience: Duration,
}

impl Nics {
    /// Sets all NICs up, and returns all links of the machine once each NIC has said whether something is plugged in.
    pub async fn look(&self) -> Result<Vec<Link>, NetworkError> {
        let mut deadline = Instant::now();
        // Before they are set up, so that no change is missed.
        let mut changes = netlink::Changes::open()?;
        loop {
            let links = Netlink::open().await?.links().await?;
            let nics = || links.iter().filter(|link| self.is_nic(link));
            for nic in nics().filter(|nic| !nic.is_up()) {
                // One that is broken is no reason to have no network.
                match Netlink::open().await?.change(nic, Change::Up).await {
                    Ok(()) => deadline = deadline.max(Instant::now() + self.patience),
                    Err(e) => tracing::warn!("{} cannot be set up: {e}", nic.name),
                }
            }
            if nics().next().is_some() && nics().all(|nic| nic.carrier) {
                return Ok(links);
            }
            // A link that changes all the time is not waited for longer.
            if Instant::now() < deadline && timeout_at(deadline, changes.next()).await.is_ok() {
                continue;
            }
            return Ok(links);
        }
    }

    /// The NICs among links that have a carrier, or why there are none.
    pub fn plugged(&self, links: &[Link]) -> Result<Vec<Link>, NetworkError> {
        let nics = || links.iter().filter(|link| self.is_nic(link));
        let plugged: Vec<Link> = nics().filter(|nic| nic.carrier).cloned().collect();
        let names: Vec<&str> = nics().map(|nic| nic.name.as_str()).collect();
        match (plugged.is_empty(), names.is_empty()) {
            (_, true) => Err(NetworkError::NoNic),
            (true, false) => Err(NetworkError::NoCarrier(names.join(", "))),
            (false, false) => Ok(plugged),
        }
    }

    /// The links that can be asked for a network in the place of NICs: a port of a bridge has none of its own.
    pub fn fronts(&self, plan: &Plan, links: &[Link]) -> Result<Vec<Link>, NetworkError> {
        let plugged = self.plugged(links)?;
        let mut fronts: Vec<Link> = Vec::new();
        for nic in &plugged {
            let bridge = nic.controller.and_then(|index| links.iter().find(|link| link.index == index));
            let front = match bridge {
                Some(bridge) if plan.links.keys().any(|name| **name == *bridge.name) => bridge,
                // A port of somebody else's, who knows what to do with it.
                Some(_) => continue,
                None => nic,
            };
            if !fronts.iter().any(|other| other.index == front.index) {
                fronts.push(front.clone());
            }
        }
        Ok(fronts)
    }

    /// Whether a link is one: of the right kind, with an address of Ethernet.
    pub fn is_nic(&self, link: &Link) -> bool {
        link.kind == self.kind && link.name != "lo" && link.address.len() == 6
    }

    /// What of all links decides about a network: the NICs, and the others that the plan means.
    pub fn seen(&self, plan: &Plan, links: &[Link]) -> Seen {
        let place = |link: &Link| (link.index, link.name.clone());
        let nics = links.iter().filter(|link| self.is_nic(link));
        let nics = nics.map(|nic| (place(nic), Some((nic.carrier, nic.plugged))));
        let others = links.iter().filter(|link| !self.is_nic(link) && wanted(*self, plan, link).is_some());
        nics.chain(others.map(|link| (place(link), None))).collect()
    }
}
