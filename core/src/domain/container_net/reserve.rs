//! What a container gets of what there is: addresses and ports that nobody else has, written down before anything is made.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use super::lease::{self, INSIDE, OUTSIDE, Salt};
use super::plan::{Addressing, Nic, Plan, Port};
use super::record::{NicRecord, Record, Target};
use super::{
    Attached, DEFAULT_BRIDGE, Entry, Id, MAX_CONTAINERS, NetworkError, Networks, State, named, port,
};
use crate::domain::bridge;
use crate::sys::netlink::{self, Cidr, Netlink};

/// How long a container that ends may have a port that another one wants: its grace, and many times that for the rest.
const ENDING: Duration = Duration::from_secs(15);

/// A bridge, as it is now.
#[derive(Debug)]
struct Site {
    /// Its name.
    name: String,
    /// Its hardware address.
    hardware: Vec<u8>,
    /// The node's addresses on it.
    addresses: Vec<Cidr>,
    /// What it is, when it is one of ours.
    plan: Option<bridge::Plan>,
}

impl Networks {
    /// Decides what network a container will have, so that what it shall find in its files is known before there is a
    /// namespace. Whoever reserves one calls [`Networks::attach`] or [`Networks::release`] for it.
    pub async fn reserve(self: &Arc<Self>, id: Id, name: &str, plan: Plan) -> Result<Attached, NetworkError> {
        let networks = self.clone();
        let name = name.to_owned();
        // On its own: a caller that goes away must not leave half of a bridge.
        let reserved = tokio::spawn(async move { networks.reserve_here(id, &name, &plan).await });
        reserved.await.map_err(|e| NetworkError::Interrupted(id, e))?
    }

    pub(super) async fn reserve_here(
        self: &Arc<Self>,
        id: Id,
        name: &str,
        plan: &Plan,
    ) -> Result<Attached, NetworkError> {
        // Before anything is held that others need.
        let _ = tokio::time::timeout(ENDING, self.none_ends_with(&plan.ports)).await;
        // The default bridge stays from here until the record says that it is used.
        let bridge_use = self.bridge_use.read().await;
        let reserved = async {
            self.step("find the bridges of its network").await?;
            let sites = self.sites(plan).await?;
            self.step("write its network down").await?;
            self.write_down(id, name, plan, &sites)
        };
        let reserved = reserved.await;
        drop(bridge_use);
        if reserved.is_err() {
            // The default bridge may have been made for this one alone.
            self.linger();
        }
        reserved
    }

    /// Waits while a container that ends has one of these ports.
    async fn none_ends_with(&self, ports: &[Port]) {
        loop {
            let mut released = pin!(self.released.notified());
            released.as_mut().enable();
            let ends = |entry: &Entry| entry.ending && ports.iter().any(|port| has(entry, port));
            if !self.state.lock().entries.values().any(ends) {
                return;
            }
            released.await;
        }
    }

    /// The bridge of every NIC, the default one made at need.
    async fn sites(&self, plan: &Plan) -> Result<Vec<Site>, NetworkError> {
        let netlink = Netlink::open().await?;
        if plan.nics.iter().any(is_default) {
            self.bridges.ensure(&self.default_bridge).await.map_err(NetworkError::DefaultBridge)?;
        }
        let mut sites = Vec::new();
        for nic in &plan.nics {
            let name = nic.bridge.as_deref().unwrap_or(DEFAULT_BRIDGE);
            let link = match netlink.link(name).await {
                Ok(link) if link.is_bridge() => link,
                Ok(_) | Err(netlink::Error::NoLink(_)) => {
                    return Err(NetworkError::NoBridge(name.to_owned()));
                }
                Err(e) => return Err(e.into()),
            };
            let addresses = netlink.addresses(Some(&link)).await?.into_iter().map(|(_, cidr)| cidr).collect();
            let plan = self.bridges.find(name)?;
            sites.push(Site { name: name.to_owned(), hardware: link.address, addresses, plan });
        }
        Ok(sites)
    }

    /// Decides what the container gets and writes it down.
    fn write_down(&self, id: Id, name: &str, plan: &Plan, sites: &[Site]) -> Result<Attached, NetworkError> {
        let salt = self.records.salt()?;
        let mut state = self.state.lock();
        if state.entries.contains_key(&id) {
            return Err(NetworkError::Exists(id));
        }
        if state.entries.len() >= MAX_CONTAINERS {
            return Err(NetworkError::TooMany);
        }
        let mut record =
            Record { id, name: name.to_owned(), nics: Vec::new(), ports: Vec::new(), target: None };
        for (nic, site) in plan.nics.iter().zip(sites) {
            let reserved = reserve_nic(&state, &record, &salt, nic, site)?;
            if let (Addressing::Pool, Some(IpAddr::V4(address))) =
                (nic.addressing, reserved.address.map(|a| a.address))
            {
                state.last.insert(site.name.clone(), address);
            }
            record.nics.push(reserved);
        }
        refuse_taken_ports(&state, plan)?;
        record.ports.clone_from(&plan.ports);
        record.target = if record.ports.is_empty() { None } else { Some(target(&record, sites)?) };
        if let Err(error) = self.records.write(&record) {
            self.records.remove(id)?;
            return Err(error);
        }
        let attached = Attached::from(&record);
        state.entries.insert(id, Entry::new(record));
        Ok(attached)
    }
}

fn is_default(nic: &Nic) -> bool {
    nic.bridge.as_deref().is_none_or(|name| name == DEFAULT_BRIDGE)
}

fn reserve_nic(
    state: &State,
    record: &Record,
    salt: &Salt,
    nic: &Nic,
    site: &Site,
) -> Result<NicRecord, NetworkError> {
    let index = record.nics.len();
    let bridge = site.name.as_str();
    let others = || {
        let all = state.entries.values().map(|entry| &entry.record).chain([record]);
        all.flat_map(|r| r.nics.iter().map(move |nic| (r, nic))).filter(|(_, nic)| nic.bridge == bridge)
    };
    let home = site.plan.as_ref().and_then(|plan| plan.mode.network());
    let (address, gateway) = match nic.addressing {
        Addressing::None => (None, None),
        Addressing::Pool => {
            let (Some(range), Some(home)) =
                (site.plan.as_ref().and_then(|plan| plan.mode.for_containers()), home)
            else {
                return Err(NetworkError::NoRange(bridge.to_owned()));
            };
            let v4 = |cidr: Cidr| match cidr.address {
                IpAddr::V4(address) => Some(address),
                IpAddr::V6(_) => None,
            };
            let taken = others().filter_map(|(_, nic)| nic.address).chain(site.addresses.iter().copied());
            let taken: BTreeSet<Ipv4Addr> = taken.filter_map(v4).collect();
            let given = lease::next(range, &taken, state.last.get(bridge).copied());
            let address = given.ok_or_else(|| NetworkError::Full(bridge.to_owned()))?;
            (Some(Cidr { address: address.into(), prefix: home.prefix }), Some(home.address))
        }
        Addressing::Fixed { address, gateway } => {
            refuse_taken(site, address, others())?;
            // On the default bridge, the way out is known.
            let known = home.filter(|home| bridge == DEFAULT_BRIDGE && address.contains(home.address));
            (Some(address), gateway.or(known.map(|home| home.address)))
        }
    };
    let number = index.to_string();
    let own: [&[u8]; 2] = [&record.id.to_le_bytes(), number.as_bytes()];
    let hardware = nic.hardware.unwrap_or_else(|| match address {
        Some(cidr) => {
            lease::hardware(salt, INSIDE, &[bridge.as_bytes(), cidr.address.to_string().as_bytes()])
        }
        None => lease::hardware(salt, INSIDE, &own),
    });
    let other = others().find(|(_, other)| other.hardware == hardware).map(|(record, _)| named(record));
    let the_bridge = || (site.hardware == hardware).then(|| "the bridge".to_owned());
    if let Some(holder) = other.or_else(the_bridge) {
        let address = hardware.map(|byte| format!("{byte:02x}")).join(":");
        return Err(NetworkError::AddressTaken { address, bridge: bridge.to_owned(), holder });
    }
    // dnsmasq answers wherever the node has an address on a bridge of ours.
    let served =
        site.plan.as_ref().filter(|plan| matches!(plan.mode, bridge::Mode::Dnsmasq { .. })).and(home);
    let dns = match served.filter(|home| address.is_some_and(|address| address.contains(home.address))) {
        Some(home) if nic.dns.is_empty() => vec![home.address],
        Some(_) | None => nic.dns.clone(),
    };
    Ok(NicRecord {
        link: format!("c{}n{index}", record.id),
        link_hardware: lease::hardware(salt, OUTSIDE, &own),
        bridge: bridge.to_owned(),
        name: nic.name.to_string(),
        hardware,
        address,
        gateway,
        dns,
    })
}

/// A fixed address is nobody else's: not the node's, no container's, and none that dnsmasq may give.
fn refuse_taken<'a>(
    site: &Site,
    address: Cidr,
    mut others: impl Iterator<Item = (&'a Record, &'a NicRecord)>,
) -> Result<(), NetworkError> {
    let holder = if site.addresses.iter().any(|own| own.address == address.address) {
        "the node".to_owned()
    } else if let Some((holder, _)) =
        others.find(|(_, nic)| nic.address.is_some_and(|other| other.address == address.address))
    {
        named(holder)
    } else {
        let range = site.plan.as_ref().and_then(|plan| plan.mode.for_dhcp());
        match (range, address.address) {
            (Some((first, last)), IpAddr::V4(address)) if (first..=last).contains(&address) => {
                format!("DHCP, which gives {first} to {last}: choose another")
            }
            _ => return Ok(()),
        }
    };
    Err(NetworkError::AddressTaken {
        address: address.address.to_string(),
        bridge: site.name.clone(),
        holder,
    })
}

fn refuse_taken_ports(state: &State, plan: &Plan) -> Result<(), NetworkError> {
    for port in &plan.ports {
        if let Some(holder) = state.entries.values().find(|entry| has(entry, port)) {
            let name = named(&holder.record);
            let ends = if holder.ending { ", which is still ending: try again" } else { "" };
            return Err(port::taken(*port, format!("{name}{ends}")));
        }
    }
    Ok(())
}

fn has(entry: &Entry, port: &Port) -> bool {
    entry
        .record
        .ports
        .iter()
        .chain(&entry.leaving)
        .any(|other| other.protocol == port.protocol && other.host == port.host)
}

/// Ports lead to the first address of the container on a network in which the node has one, too.
fn target(record: &Record, sites: &[Site]) -> Result<Target, NetworkError> {
    let mut unreachable = None;
    for (nic, site) in record.nics.iter().zip(sites) {
        let Some(cidr) = nic.address else { continue };
        let IpAddr::V4(address) = cidr.address else { continue };
        if site.addresses.iter().any(|own| cidr.contains(own.address)) {
            return Ok(Target { bridge: site.name.clone(), address });
        }
        unreachable = Some(NetworkError::Unreachable { address: cidr, bridge: site.name.clone() });
    }
    Err(unreachable.expect("a plan with ports has a NIC with an address"))
}
