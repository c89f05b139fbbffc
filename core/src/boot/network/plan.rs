//! `/etc/g8os/net.toml`: how a node's links are set up, and where its controllers are. BOOT.md describes it; what it says is
//! judged here as a whole, so that nothing is set up by half a plan.

mod links;

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::Deserialize;
use url::{Host, Url};

pub use links::Order;

use crate::argument::{HardwareAddress, InterfaceName};
use crate::boot::network::setting::is_domain;
use crate::sys::netlink::Cidr;

/// Longest file.
const FILE_MAX: u64 = 64 << 10;
/// Most controllers: all of them are asked at once.
const CONTROLLERS: usize = 16;
/// Most links.
const LINKS: usize = 128;
/// Most resolvers: glibc asks no more.
pub const RESOLVERS: usize = 3;
/// Most domains to search.
pub const DOMAINS: usize = 6;
/// What the kernel takes as the longest packet of any link, and IPv6 as the shortest.
const MTU: std::ops::RangeInclusive<u32> = 576..=65_535;

/// How a node's links are set up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Plan {
    /// Where the controllers are. One of them is enough.
    pub controllers: Vec<Endpoint>,
    /// Who resolves names, beside those that a lease brings.
    pub dns: Vec<IpAddr>,
    /// Where short names are looked for.
    pub search: Vec<String>,
    /// The links, by their names.
    #[serde(rename = "link")]
    pub links: BTreeMap<InterfaceName, Wanted>,
}

/// How a link is set up. Without anything it is set up without an address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Wanted {
    /// The NIC with this hardware address, whatever the kernel calls it.
    pub mac: Option<HardwareAddress>,
    /// `dhcp`, or an address with the length of its prefix.
    pub address: Option<Address>,
    /// The router to everywhere, in the network of the address.
    pub gateway: Option<IpAddr>,
    /// Longest packet.
    pub mtu: Option<u32>,
    /// It is made: a VLAN on another link.
    pub vlan: Option<Vlan>,
    /// It is made: a VXLAN.
    pub vxlan: Option<Vxlan>,
    /// It is made: a bridge.
    pub bridge: Option<Bridge>,
    /// It is made: a tap.
    pub tap: Option<Tap>,
}

/// A VLAN.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vlan {
    /// The link it is on.
    pub on: InterfaceName,
    /// Its number, 1 to 4094.
    pub id: u16,
}

/// A VXLAN.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vxlan {
    /// Its number, below 2^24.
    pub id: u32,
    /// The link its packets leave by; the routes decide without it.
    pub on: Option<InterfaceName>,
    /// The other end, or the group in which all ends are.
    pub remote: Ipv4Addr,
    /// The UDP port.
    #[serde(default = "vxlan_port")]
    pub port: u16,
}

/// What IANA gave to VXLAN.
fn vxlan_port() -> u16 {
    4789
}

/// A bridge.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bridge {
    /// Its ports.
    #[serde(default)]
    pub ports: Vec<InterfaceName>,
}

/// A tap has nothing to be told.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tap {}

/// How a link gets its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Address {
    /// From a server.
    Dhcp,
    /// This one.
    Static(Cidr),
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text == "dhcp" {
            return Ok(Self::Dhcp);
        }
        let cidr: Cidr =
            text.parse().map_err(|e| serde::de::Error::custom(format!("{e}, and not \"dhcp\"")))?;
        if !cidr.is_host() {
            return Err(serde::de::Error::custom(format!("{cidr} is no address that a node can have")));
        }
        Ok(Self::Static(cidr))
    }
}

/// Where a server is: an http or https URL, of which host and port matter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    url: Url,
}

impl Endpoint {
    /// Its host as the resolver takes it.
    pub fn host(&self) -> &str {
        let host = self.url.host_str().expect("it was judged when it was read");
        host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.url.port_or_known_default().expect("http and https have one")
    }

    /// Whether it is each node itself, as no controller can be.
    pub fn is_own(&self) -> bool {
        match self.url.host() {
            Some(Host::Ipv4(ip)) => is_own(ip.into()),
            Some(Host::Ipv6(ip)) => is_own(ip.into()),
            // RFC 6761, 6.3.
            Some(Host::Domain(name)) => {
                let name = name.trim_end_matches('.');
                name == "localhost" || name.ends_with(".localhost")
            }
            None => false,
        }
    }

    /// The URL.
    pub fn url(&self) -> &Url {
        &self.url
    }
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refused = |why: &str| format!("{} is no URL of a server: {why}", crate::argument::shown(text));
        let url: Url = text.parse().map_err(|e: url::ParseError| refused(&e.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
            return Err(refused("it begins with http://HOST or https://HOST"));
        }
        if !url.username().is_empty() || url.password().is_some() || url.port() == Some(0) {
            return Err(refused("it has a user or port 0"));
        }
        Ok(Self { url })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = self.url.host_str().unwrap_or_default();
        write!(f, "{}://{host}:{}", self.url.scheme(), self.port())
    }
}

impl<'de> Deserialize<'de> for Endpoint {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Whether who connects to an address reaches himself.
pub fn is_own(ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    ip.is_loopback() || ip.is_unspecified()
}

/// That none of the controllers is each node itself: it would be reachable wherever a node is.
pub fn judge_controllers(controllers: &[Endpoint]) -> Result<(), String> {
    match controllers.iter().find(|endpoint| endpoint.is_own()) {
        Some(endpoint) => Err(format!("controllers: {endpoint} is each node itself")),
        None => Ok(()),
    }
}

/// A plan that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// It cannot be read.
    #[error("cannot read {}: {}", .0.display(), .1)]
    Read(PathBuf, #[source] io::Error),
    /// It is no TOML, or has wrong fields.
    #[error("net.toml, {0}")]
    Parse(String),
    /// What it says makes no sense.
    #[error("net.toml: {0}")]
    Senseless(String),
}

impl Plan {
    /// Reads a file and returns its text too; `None` when there is none.
    pub fn load(path: &Path) -> Result<Option<(Self, String)>, PlanError> {
        let read = || -> io::Result<String> {
            let mut text = String::new();
            std::fs::File::open(path)?.take(FILE_MAX + 1).read_to_string(&mut text)?;
            Ok(text)
        };
        match read() {
            Ok(text) => Ok(Some((Self::parse(&text)?, text))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(PlanError::Read(path.into(), e)),
        }
    }

    /// Judges a text.
    pub fn parse(text: &str) -> Result<Self, PlanError> {
        if text.len() as u64 > FILE_MAX {
            return Err(PlanError::Senseless(format!("it has more than {FILE_MAX} bytes")));
        }
        let plan: Self = toml::from_str(text).map_err(|e| PlanError::Parse(one_line(&e, text)))?;
        plan.judge().map_err(PlanError::Senseless)?;
        Ok(plan)
    }

    fn judge(&self) -> Result<(), String> {
        let too_many = |what: &str, most: usize| Err(format!("it has more than {most} {what}"));
        if self.controllers.len() > CONTROLLERS {
            return too_many("controllers", CONTROLLERS);
        }
        judge_controllers(&self.controllers)?;
        if self.links.len() > LINKS {
            return too_many("links", LINKS);
        }
        if self.dns.len() > RESOLVERS {
            return too_many("resolvers", RESOLVERS);
        }
        if self.search.len() > DOMAINS {
            return too_many("domains to search", DOMAINS);
        }
        if let Some(name) = self.search.iter().find(|name| !is_domain(name)) {
            return Err(format!("{name:?} is no domain"));
        }
        if let Some(address) =
            self.dns.iter().find(|address| address.is_unspecified() || address.is_multicast())
        {
            return Err(format!("{address} resolves no names"));
        }
        for (name, wanted) in &self.links {
            wanted.judge().map_err(|why| format!("link {name}: {why}"))?;
        }
        self.order().map(drop)
    }
}

impl Wanted {
    /// It is made by the plan, and no NIC.
    pub fn is_made(&self) -> bool {
        self.vlan.is_some() || self.vxlan.is_some() || self.bridge.is_some() || self.tap.is_some()
    }

    fn judge(&self) -> Result<(), String> {
        let kinds = [self.vlan.is_some(), self.vxlan.is_some(), self.bridge.is_some(), self.tap.is_some()];
        if kinds.into_iter().filter(|kind| *kind).count() > 1 {
            return Err("it is of more than one kind".into());
        }
        if self.mac.is_some() && self.is_made() {
            return Err("mac finds a NIC, and this link is made".into());
        }
        if self.mtu.is_some_and(|mtu| !MTU.contains(&mtu)) {
            return Err(format!("mtu is {} to {}", MTU.start(), MTU.end()));
        }
        if self.vlan.as_ref().is_some_and(|vlan| !(1..=4094).contains(&vlan.id)) {
            return Err("the id of a vlan is 1 to 4094".into());
        }
        if let Some(vxlan) = &self.vxlan {
            if vxlan.id >= 1 << 24 || vxlan.port == 0 {
                return Err("the id of a vxlan is below 16777216, and its port is not 0".into());
            }
            if vxlan.remote.is_multicast() && vxlan.on.is_none() {
                return Err("a group is on a link: `on` is missing".into());
            }
        }
        match (self.gateway, self.address) {
            (Some(gateway), Some(Address::Static(own))) if !own.contains(gateway) => {
                Err(format!("the gateway {gateway} is not in the network of {own}"))
            }
            (Some(gateway), Some(Address::Static(own))) if own.address == gateway => {
                Err(format!("the gateway {gateway} is the link's own address"))
            }
            (Some(_), Some(Address::Dhcp) | None) => {
                Err("a gateway needs an address of the link's own".into())
            }
            (Some(_) | None, _) => Ok(()),
        }
    }
}

/// An error for a console: where and why, on one line.
fn one_line(e: &toml::de::Error, text: &str) -> String {
    let before = e.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    let why = e.message().lines().collect::<Vec<_>>().join(" ");
    format!("line {}: {why}", before.matches('\n').count() + 1)
}

#[cfg(test)]
mod tests;
