//! The links of the machine: what the plan makes of them, what is set on each, and who looks after it.

mod lay;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::PathBuf;

use tokio::sync::mpsc;

use super::keeper::{Goes, Keeper, Note, Times};
use super::last_resort::Claim;
use super::nics::Nics;
use super::plan::{Address, Plan, Wanted};
use super::setting::Setting;
use super::{NetworkError, resolver, told};
use crate::argument::InterfaceName;
use crate::sys::netlink::{self, Change, Cidr, Link, Netlink, Vxlan};
use crate::sys::tool::Tool;
use lay::{lay, take, take_back};

/// The metric of routes by a NIC that is tried: they go before the configured ones.
const TRIED: u32 = 10;
/// Those of configured links count from here, in the order of their names.
const CONFIGURED: u32 = 100;
/// Longest list of addresses that an earlier search left.
const LEFT_MAX: usize = 64 << 10;
/// Most that is told of what is wrong with what is set on a link.
const TOLD: usize = 3;

/// Where the edge has its files.
#[derive(Clone, Debug)]
pub struct Files {
    /// The resolver's file; the one in `/etc` is a link to it.
    pub resolver: PathBuf,
    /// The addresses that are set, for a search that begins anew.
    pub addresses: PathBuf,
}

/// See the module's text.
#[derive(Debug)]
pub struct Edge {
    nics: Nics,
    files: Files,
    times: Times,
    notes: mpsc::Sender<Note>,
    next: u64,
    held: BTreeMap<String, Held>,
    /// What an earlier search set and nobody has set again, with its link.
    left: Vec<(String, Cidr)>,
}

/// A link that has an address, or is about to.
#[derive(Debug)]
struct Held {
    link: Link,
    metric: u32,
    /// What is set: of its routes, those that the kernel took.
    setting: Option<Setting>,
    /// Why the others are not.
    refused: Vec<String>,
    keeper: Option<Keeper>,
}

impl Edge {
    /// One that has set nothing yet.
    pub fn new(nics: Nics, files: Files, times: Times, notes: mpsc::Sender<Note>) -> Self {
        let text = fs::read_to_string(&files.addresses).unwrap_or_default();
        let line = |line: &str| {
            let (link, cidr) = line.split_once(' ')?;
            Some((link.to_owned(), cidr.parse().ok()?))
        };
        let left = text.get(..LEFT_MAX).unwrap_or(&text).lines().filter_map(line).collect();
        Self { nics, files, times, notes, next: 0, held: BTreeMap::new(), left }
    }

    /// Makes the links of a plan and sets them up. One that is broken is no reason to have no network: all that went wrong is
    /// returned.
    pub async fn make(&self, plan: &Plan) -> Vec<String> {
        let mut wrong = Vec::new();
        for name in plan.order().unwrap_or_default() {
            if let Err(e) = make(self.nics, plan, name).await {
                wrong.push(format!("link {name}: {}", told(&e)));
            }
        }
        wrong
    }

    /// Sets up the address of a link as configured. It returns the number of the keeper who asks for a lease.
    pub async fn configure(&mut self, plan: &Plan, link: &Link) -> Result<Option<u64>, NetworkError> {
        let (place, wanted) = wanted(self.nics, plan, link).unwrap_or_default();
        let metric = CONFIGURED + place as u32;
        match wanted.address.map(|address| (address, wanted.gateway)) {
            None => self.clear(&link.name).await.map(|()| None),
            Some((Address::Static(address), gateway)) => {
                let setting = Setting::fixed(address, gateway);
                let there = |held: &Held| {
                    held.keeper.is_none()
                        && held.link.index == link.index
                        && held.metric == metric
                        && held.setting.as_ref().is_some_and(|own| own.address == address)
                };
                if !self.held.get(&link.name).is_some_and(there) {
                    self.clear(&link.name).await?;
                    self.hold(link, metric, None);
                }
                // Also when it is there: the kernel takes routes away with a link that goes down, and tells nobody.
                self.put(&link.name, setting).await.map(|()| None)
            }
            Some((Address::Dhcp, _)) => {
                let well = |held: &Held| {
                    held.keeper.is_some()
                        && held.setting.is_some()
                        && held.link.index == link.index
                        && held.metric == metric
                };
                if self.held.get(&link.name).is_some_and(well) {
                    return Ok(None);
                }
                self.clear(&link.name).await?;
                Ok(Some(self.ask(link, metric, Goes::On)))
            }
        }
    }

    /// Takes back what is set on links that the plan does not name any more.
    pub async fn forget_all_but(&mut self, links: &[Link]) {
        let gone = |name: &&String| !links.iter().any(|link| link.name == **name);
        let gone: Vec<String> = self.held.keys().filter(gone).cloned().collect();
        for name in gone {
            if let Err(e) = self.clear(&name).await {
                tracing::warn!("{e}");
            }
        }
    }

    /// Asks for a lease beside what is configured.
    pub async fn try_lease(&mut self, link: &Link) -> Result<u64, NetworkError> {
        self.clear(&link.name).await?;
        Ok(self.ask(link, TRIED, Goes::Once))
    }

    /// Sets an address of last resort.
    pub async fn try_claim(&mut self, link: &Link, claim: Claim) -> Result<(), NetworkError> {
        let address = claim.address();
        let number = self.number();
        let keeper = Keeper::claim(number, link.clone(), self.times, claim, self.notes.clone());
        self.hold(link, TRIED, Some(keeper));
        self.put(&link.name, Setting::fixed(address, None)).await
    }

    /// Takes back all that is set on a link, and whoever looks after it. What cannot be taken back is not forgotten: whoever
    /// sets something else there next tries again.
    pub async fn clear(&mut self, name: &str) -> Result<(), NetworkError> {
        let Some(held) = self.held.get_mut(name) else { return Ok(()) };
        held.keeper = None;
        if let Some(setting) = &held.setting {
            take_back(&held.link, held.metric, setting).await?;
        }
        self.held.remove(name);
        self.write();
        Ok(())
    }

    /// A server gave something to a keeper: it is set in the place of what was there. False when the keeper is none any more.
    pub async fn leased(&mut self, keeper: u64, setting: Setting) -> Result<bool, NetworkError> {
        let Some(name) = self.name_of(keeper) else { return Ok(false) };
        self.put(&name, setting).await?;
        Ok(true)
    }

    /// What a keeper looked after is over; the name of its link, when it is one of ours.
    pub async fn over(&mut self, keeper: u64) -> Option<String> {
        let name = self.name_of(keeper)?;
        let held = self.held.get_mut(&name)?;
        held.refused.clear();
        if let Some(setting) = held.setting.take()
            && let Err(e) = take_back(&held.link, held.metric, &setting).await
        {
            tracing::warn!("{e}");
            self.leave(&name, setting.address);
        }
        self.write();
        Some(name)
    }

    /// The links that have something set, the best way out first.
    pub fn set(&self) -> Vec<(&Link, &Setting)> {
        let mut set: Vec<_> =
            self.held.values().filter_map(|held| Some((held, held.setting.as_ref()?))).collect();
        set.sort_by_key(|(held, setting)| (setting.way_out().is_none(), held.metric));
        set.into_iter().map(|(held, setting)| (&held.link, setting)).collect()
    }

    /// What is wrong with what is set on a link: what its server gave that cannot be, and what the kernel refused.
    pub fn trouble_of(&self, name: &str) -> Option<String> {
        let held = self.held.get(name)?;
        let left_out = held.setting.iter().flat_map(|setting| &setting.left_out);
        let left_out = left_out.map(|what| format!("the server gives what cannot be used, {what}"));
        let wrong: Vec<String> = left_out.chain(held.refused.iter().cloned()).collect();
        let more = wrong.len().saturating_sub(TOLD);
        let more = if more > 0 { format!(" (and {more} more)") } else { String::new() };
        (!wrong.is_empty()).then(|| format!("{name}: {}{more}", wrong[..wrong.len().min(TOLD)].join(", ")))
    }

    /// The same, of all links.
    pub fn troubles(&self) -> impl Iterator<Item = String> {
        self.held.keys().filter_map(|name| self.trouble_of(name))
    }

    /// The links whose address nobody looks after.
    pub fn unwatched(&self) -> Vec<Link> {
        self.held.values().filter(|held| held.keeper.is_none()).map(|held| held.link.clone()).collect()
    }

    /// The link of a keeper.
    pub fn name_of(&self, keeper: u64) -> Option<String> {
        let is = |held: &Held| held.keeper.as_ref().is_some_and(|own| own.number == keeper);
        self.held.iter().find(|(_, held)| is(held)).map(|(name, _)| name.clone())
    }

    /// Takes back what an earlier search left and this one has not set. True when there was something.
    pub async fn tidy(&mut self) -> bool {
        let links = async { Netlink::open().await?.links().await };
        let Ok(links) = links.await else { return false };
        let mut took = false;
        for (name, address) in std::mem::take(&mut self.left) {
            let own = self.held.get(&name);
            if own.and_then(|held| held.setting.as_ref()).is_some_and(|setting| setting.address == address) {
                continue;
            }
            let Some(link) = links.iter().find(|link| link.name == name) else { continue };
            let metric = Some(TRIED).filter(|metric| own.is_none_or(|held| held.metric != *metric));
            took = true;
            if let Err(e) = take(link, address, metric).await {
                tracing::warn!("{e}");
                self.leave(&name, address);
            }
        }
        self.write();
        took
    }

    /// Writes the file of the resolver: what leases say, the best way out first, and then what the plan says.
    pub fn resolve_by(&self, plan: &Plan) -> Result<(), NetworkError> {
        let set = self.set();
        let mut resolvers = Vec::new();
        let given = set.iter().flat_map(|(_, setting)| &setting.resolvers).chain(&plan.dns);
        for resolver in given {
            if !resolvers.contains(resolver) && resolvers.len() < super::plan::RESOLVERS {
                resolvers.push(*resolver);
            }
        }
        let mut domains: Vec<String> = Vec::new();
        for domain in plan.search.iter().chain(set.iter().flat_map(|(_, setting)| &setting.domains)) {
            if !domains.contains(domain) && domains.len() < super::plan::DOMAINS {
                domains.push(domain.clone());
            }
        }
        resolver::write(&self.files.resolver, &resolvers, &domains)
            .map_err(|e| NetworkError::Files(self.files.resolver.clone(), e))
    }

    fn ask(&mut self, link: &Link, metric: u32, goes: Goes) -> u64 {
        let number = self.number();
        let keeper = Keeper::lease(number, link.clone(), self.times, goes, self.notes.clone());
        self.hold(link, metric, Some(keeper));
        number
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn hold(&mut self, link: &Link, metric: u32, keeper: Option<Keeper>) {
        let held = Held { link: link.clone(), metric, setting: None, refused: Vec::new(), keeper };
        self.held.insert(link.name.clone(), held);
    }

    /// An address that could not be taken back, which is tried again when there is a network.
    fn leave(&mut self, name: &str, address: Cidr) {
        let left = (name.to_owned(), address);
        if !self.left.contains(&left) {
            self.left.push(left);
        }
    }

    /// Sets something on a link that is held, in the place of what was set before. What is there already stays: an earlier
    /// search may have put it there.
    async fn put(&mut self, name: &str, setting: Setting) -> Result<(), NetworkError> {
        let Some(held) = self.held.get_mut(name) else { return Ok(()) };
        let before = held.setting.replace(Setting { routes: Vec::new(), ..setting.clone() });
        held.refused.clear();
        let (link, metric) = (held.link.clone(), held.metric);
        // Before anything is set, so that a search that begins anew knows of it.
        self.write();
        let laid = lay(&link, metric, before.as_ref(), &setting).await;
        let Some(held) = self.held.get_mut(name) else { return Ok(()) };
        match laid {
            Ok((routes, refused)) => {
                for why in &refused {
                    tracing::warn!("{name}: {why}");
                }
                held.setting = Some(Setting { routes, ..setting });
                held.refused = refused;
                Ok(())
            }
            Err(e) => {
                // Nobody may believe that it is there, nor forget what may be.
                held.setting = None;
                for address in before.map(|before| before.address).into_iter().chain([setting.address]) {
                    self.leave(name, address);
                }
                Err(e)
            }
        }
    }

    /// Writes down what is set. Where that cannot be, a search that begins anew does not know of it: no reason to have no
    /// network.
    fn write(&self) {
        let own = self.set();
        let own = own.iter().map(|(link, setting)| (&link.name, setting.address));
        let left = self.left.iter().map(|(name, address)| (name, *address));
        let text: String = own.chain(left).map(|(name, address)| format!("{name} {address}\n")).collect();
        let write = || {
            let new = self.files.addresses.with_extension("new");
            fs::write(&new, text)?;
            fs::rename(&new, &self.files.addresses)
        };
        let written = write().map_err(|e: io::Error| NetworkError::Files(self.files.addresses.clone(), e));
        if let Err(e) = written {
            tracing::warn!("{e}; what is set now stays there when the manager is killed");
        }
    }
}

/// How a link is configured, and at which place.
pub fn wanted(nics: Nics, plan: &Plan, link: &Link) -> Option<(usize, Wanted)> {
    let mut links = plan.links.iter().enumerate();
    let found = links.find(|(_, (name, wanted))| is(nics, name, wanted, link));
    found.map(|(place, (_, wanted))| (place, wanted.clone()))
}

/// Whether a link of the plan is one of the machine: by its name, or by the hardware address of a NIC. What others make on
/// that NIC, as bridges and vlans, has its address too.
fn is(nics: Nics, name: &InterfaceName, wanted: &Wanted, link: &Link) -> bool {
    match wanted.mac {
        Some(mac) => link.address == mac.0 && nics.is_nic(link),
        None => **name == *link.name,
    }
}

/// The link of the machine that a name in the plan means.
async fn find(
    netlink: &Netlink,
    nics: Nics,
    plan: &Plan,
    name: &InterfaceName,
) -> Result<Link, netlink::Error> {
    match plan.links.get(name) {
        Some(wanted) if wanted.mac.is_some() => {
            let mut links = netlink.links().await?.into_iter();
            let found = links.find(|link| is(nics, name, wanted, link));
            found.ok_or_else(|| netlink::Error::NoLink(format!("with the hardware address of {name}")))
        }
        Some(_) | None => netlink.link(name).await,
    }
}

/// Makes a link, unless it is there, and sets it up.
async fn make(nics: Nics, plan: &Plan, name: &InterfaceName) -> Result<(), NetworkError> {
    let netlink = Netlink::open().await?;
    let wanted = &plan.links[name];
    let link = match find(&netlink, nics, plan, name).await {
        Err(netlink::Error::NoLink(_)) if wanted.is_made() => {
            make_new(&netlink, nics, plan, name).await?;
            netlink.link(name).await?
        }
        found => found?,
    };
    if let Some(mtu) = wanted.mtu.filter(|mtu| *mtu != link.mtu) {
        netlink.change(&link, Change::Mtu(mtu)).await?;
    }
    for port in wanted.bridge.iter().flat_map(|bridge| &bridge.ports) {
        let port = find(&netlink, nics, plan, port).await?;
        if port.controller != Some(link.index) {
            netlink.change(&port, Change::Controller(link.index)).await?;
        }
    }
    if !link.is_up() {
        netlink.change(&link, Change::Up).await?;
    }
    Ok(())
}

async fn make_new(
    netlink: &Netlink,
    nics: Nics,
    plan: &Plan,
    name: &InterfaceName,
) -> Result<(), NetworkError> {
    let wanted = &plan.links[name];
    if let Some(vlan) = &wanted.vlan {
        let on = find(netlink, nics, plan, &vlan.on).await?;
        netlink.add_vlan(name, &on, vlan.id).await?;
    }
    if let Some(vxlan) = &wanted.vxlan {
        let on = match &vxlan.on {
            Some(on) => Some(find(netlink, nics, plan, on).await?),
            None => None,
        };
        let (on, remote) = (on.as_ref(), vxlan.remote);
        netlink.add_vxlan(&Vxlan { name, id: vxlan.id, on, remote, port: vxlan.port }).await?;
    }
    if wanted.bridge.is_some() {
        netlink.add_bridge(name, None).await?;
    }
    if wanted.tap.is_some() {
        // The kernel makes none over netlink.
        Tool::new("ip").args(["tuntap", "add", "mode", "tap", "name"]).arg(&**name).run().await?;
    }
    Ok(())
}
