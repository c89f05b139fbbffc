//! The NICs of a machine, and which of them something is plugged into.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::NetworkError;
use super::plan::Plan;
use crate::sys::netlink::{self, Change, Link, Netlink};

/// NICs of one kind: hardware, which has no kind, and whatever tests put in its place.
#[derive(Clone, Copy, Debug)]
pub struct Nics {
    /// The kind.
    pub kind: &'static str,
    /// How long a NIC that was set up may take to find out whether something is plugged in.
    pub patience: Duration,
}

impl Nics {
    /// Those that have a carrier, once all have said whether they do.
    pub async fn plugged(&self) -> Result<Vec<Link>, NetworkError> {
        let mut deadline = Instant::now();
        // Before they are set up, so that no change is missed.
        let mut changes = netlink::Changes::open()?;
        loop {
            let nics = self.all().await?;
            for nic in nics.iter().filter(|nic| !nic.is_up()) {
                // One that is broken is no reason to have no network.
                match Netlink::open().await?.change(nic, Change::Up).await {
                    Ok(()) => deadline = deadline.max(Instant::now() + self.patience),
                    Err(e) => tracing::warn!("{} cannot be set up: {e}", nic.name),
                }
            }
            let plugged: Vec<Link> = nics.iter().filter(|nic| nic.carrier).cloned().collect();
            if plugged.len() == nics.len() && !nics.is_empty() {
                return Ok(plugged);
            }
            // A link that changes all the time is not waited for longer.
            if Instant::now() < deadline && timeout_at(deadline, changes.next()).await.is_ok() {
                continue;
            }
            let names: Vec<&str> = nics.iter().map(|nic| nic.name.as_str()).collect();
            return match (plugged.is_empty(), nics.is_empty()) {
                (_, true) => Err(NetworkError::NoNic),
                (true, false) => Err(NetworkError::NoCarrier(names.join(", "))),
                (false, false) => Ok(plugged),
            };
        }
    }

    /// The links that can be asked for a network in the place of NICs: a port of a bridge has none of its own.
    pub async fn fronts(&self, plan: &Plan, plugged: &[Link]) -> Result<Vec<Link>, NetworkError> {
        let links = Netlink::open().await?.links().await?;
        let mut fronts: Vec<Link> = Vec::new();
        for nic in plugged {
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

    /// Which there are, plugged or not.
    pub async fn indexes(&self) -> Result<BTreeSet<u32>, NetworkError> {
        Ok(self.all().await?.iter().map(|nic| nic.index).collect())
    }

    /// Links of the right kind that have an address of Ethernet.
    async fn all(&self) -> Result<Vec<Link>, NetworkError> {
        let links = Netlink::open().await?.links().await?;
        let is_nic = |link: &Link| link.kind == self.kind && link.name != "lo" && link.address.len() == 6;
        Ok(links.into_iter().filter(is_nic).collect())
    }
}
