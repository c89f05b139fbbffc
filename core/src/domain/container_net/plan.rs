//! What the network of a container shall be, as far as that can be said without looking at the node.

use std::collections::HashSet;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::arguments::{NetworkArguments, NicArguments, NicConfig, PortArguments};
use crate::argument::{HardwareAddress, InterfaceName, shown};
use crate::domain::nft::Protocol;
use crate::sys::netlink::Cidr;

/// Most NICs of a container.
const MAX_NICS: usize = 16;
/// Most DNS servers: no resolver reads more (resolv.conf(5)).
pub const MAX_DNS: usize = 3;

/// Why a network cannot be as it is asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// It contradicts itself, or means nothing.
    #[error("{0}")]
    Invalid(String),
    /// It means something that this node cannot do.
    #[error("{0} not supported by this node")]
    Unsupported(String),
    /// A network of ZeroTier.
    #[error(
        "networks of ZeroTier are not supported by this node: nothing on it speaks ZeroTier, as zerotier-one is in no package \
         of Debian; lead a bridge into that network, and give it as bridge"
    )]
    ZeroTier,
}

/// The network of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// That of the node: there is nothing to attach.
    Host,
    /// Its own.
    Own(Plan),
}

impl Wanted {
    /// Whether nothing has to be put into it before programs start.
    pub fn is_ready(&self) -> bool {
        match self {
            Self::Host => true,
            Self::Own(plan) => plan.nics.is_empty(),
        }
    }
}

impl Default for Wanted {
    fn default() -> Self {
        Wanted::Own(Plan::default())
    }
}

/// An own network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Its NICs, in their order.
    pub nics: Vec<Nic>,
    /// Ports of the node that lead to it.
    pub ports: Vec<Port>,
}

/// A NIC: a link to a bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nic {
    /// Name in the container.
    pub name: InterfaceName,
    /// The bridge; `None` for the default one.
    pub bridge: Option<InterfaceName>,
    /// Its address.
    pub addressing: Addressing,
    /// Its hardware address; one of its own when there is none.
    pub hardware: Option<[u8; 6]>,
    /// DNS servers instead of the bridge's.
    pub dns: Vec<IpAddr>,
}

/// How a NIC gets its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addressing {
    /// It has none.
    None,
    /// From the range of the bridge.
    Pool,
    /// This one.
    Fixed {
        /// The address and its network.
        address: Cidr,
        /// Where packets for other networks go.
        gateway: Option<IpAddr>,
    },
}

/// A port of the node that leads to the container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// What is forwarded.
    pub protocol: Protocol,
    /// The port of the node.
    pub host: u16,
    /// The port of the container.
    pub container: u16,
}

fn invalid<T>(why: impl Into<String>) -> Result<T, PlanError> {
    Err(PlanError::Invalid(why.into()))
}

impl NetworkArguments {
    /// What is asked for, checked against itself.
    pub fn plan(&self) -> Result<Wanted, PlanError> {
        if self.host_network {
            return Ok(Wanted::Host);
        }
        let nics = match (&self.network, &self.nics) {
            (Some(old), Some(_)) if old.bridge.is_some() => {
                return invalid("bridges are given in network and in nics: use one of them");
            }
            (Some(old), _) if old.zerotier.as_deref().is_some_and(|id| !id.is_empty()) => {
                return Err(PlanError::ZeroTier);
            }
            (_, Some(nics)) => nics.clone(),
            (Some(old), None) => old_nics(old.bridge.as_deref().unwrap_or_default()),
            (None, None) => old_nics(&[]),
        };
        if nics.len() > MAX_NICS {
            return invalid(format!("{} NICs are more than the {MAX_NICS} of a container", nics.len()));
        }
        let nics: Vec<Nic> =
            nics.iter().enumerate().map(|(i, nic)| one_nic(i, nic)).collect::<Result<_, _>>()?;
        let mut names = HashSet::new();
        if let Some(twice) = nics.iter().find(|nic| !names.insert(&*nic.name)) {
            return invalid(format!("two NICs have the name {}", twice.name));
        }
        let ports = ports(self.port.as_ref().unwrap_or(&PortArguments::default()))?;
        let reachable = |nic: &Nic| match nic.addressing {
            Addressing::None => false,
            Addressing::Pool => true,
            Addressing::Fixed { address, .. } => address.address.is_ipv4(),
        };
        if !ports.is_empty() && !nics.iter().any(reachable) {
            return invalid("ports lead to an IPv4 address of the container, and none of its NICs has one");
        }
        Ok(Wanted::Own(Plan { nics, ports }))
    }
}

/// `eth0` is on the default bridge, and the others follow.
fn old_nics(bridges: &[(String, Option<String>)]) -> Vec<NicArguments> {
    let default = NicArguments { kind: "default".to_owned(), ..NicArguments::default() };
    // One more than allowed is enough to be refused.
    let others = bridges.iter().take(MAX_NICS).map(|(bridge, setup)| {
        let config = match setup.as_deref().unwrap_or_default() {
            "" | "none" => NicConfig::default(),
            "dhcp" => NicConfig { dhcp: true, ..NicConfig::default() },
            cidr => NicConfig { cidr: Some(cidr.to_owned()), ..NicConfig::default() },
        };
        NicArguments {
            kind: "bridge".to_owned(),
            id: Some(bridge.clone()),
            config: Some(config),
            ..NicArguments::default()
        }
    });
    std::iter::once(default).chain(others).collect()
}

fn one_nic(index: usize, nic: &NicArguments) -> Result<Nic, PlanError> {
    let config = nic.config.clone().unwrap_or_default();
    let id = given(nic.id.as_deref());
    let bridge = match nic.kind.as_str() {
        "default" if id.is_none() => None,
        "default" => return invalid("a NIC of type default has no id: it is on the default bridge"),
        "bridge" => match id {
            Some(id) => Some(parse::<InterfaceName>("bridge", id)?),
            None => return invalid("a NIC of type bridge needs the name of the bridge as its id"),
        },
        "zerotier" => return Err(PlanError::ZeroTier),
        "vlan" | "vxlan" | "macvlan" | "passthrough" => {
            return Err(PlanError::Unsupported(format!("NICs of type {} are", nic.kind)));
        }
        other => return invalid(format!("NIC type {} is none of default and bridge", shown(other))),
    };
    if nic.monitor {
        return Err(PlanError::Unsupported("statistics of a NIC (monitor) are".to_owned()));
    }
    let name: InterfaceName = match given(nic.name.as_deref()) {
        Some(name) => parse("NIC name", name)?,
        None => parse("NIC name", &format!("eth{index}"))?,
    };
    if matches!(&*name, "lo" | "all" | "default") {
        return invalid(format!("a NIC cannot have the name {name}: it means something else to the kernel"));
    }
    let hardware = given(nic.hwaddr.as_deref()).map(|text| parse::<HardwareAddress>("hwaddr", text));
    let dns = config.dns.as_deref().unwrap_or_default();
    if dns.len() > MAX_DNS {
        return invalid(format!("{} DNS servers are more than the {MAX_DNS} that resolvers ask", dns.len()));
    }
    Ok(Nic {
        name,
        addressing: addressing(bridge.is_none(), &config)?,
        bridge,
        hardware: hardware.transpose()?.map(|address| address.0),
        dns: dns.iter().map(|text| parse("DNS server", text)).collect::<Result<_, _>>()?,
    })
}

fn addressing(default: bool, config: &NicConfig) -> Result<Addressing, PlanError> {
    let gateway =
        given(config.gateway.as_deref()).map(|text| parse::<IpAddr>("gateway", text)).transpose()?;
    let cidr = given(config.cidr.as_deref()).map(|text| parse::<Cidr>("address", text)).transpose()?;
    match (cidr, gateway) {
        (None, Some(_)) => invalid("a gateway needs an address: give a cidr"),
        (Some(_), _) if config.dhcp => invalid("a NIC has dhcp or a cidr, not both"),
        (None, None) if default || config.dhcp => Ok(Addressing::Pool),
        (None, None) => Ok(Addressing::None),
        (Some(address), _) if !address.is_host() => {
            invalid(format!("{address} is no address of a host in its network"))
        }
        (Some(address), Some(gateway)) if !address.contains(gateway) || gateway == address.address => {
            invalid(format!("gateway {gateway} is no neighbour of {address}"))
        }
        (Some(address), gateway) => Ok(Addressing::Fixed { address, gateway }),
    }
}

/// Clients send empty text for what is not given.
fn given(text: Option<&str>) -> Option<&str> {
    text.filter(|text| !text.is_empty())
}

fn parse<T: FromStr<Err: std::fmt::Display>>(what: &str, text: &str) -> Result<T, PlanError> {
    text.parse().map_err(|e: T::Err| PlanError::Invalid(format!("{what} {}: {e}", shown(text))))
}

fn ports(arguments: &PortArguments) -> Result<Vec<Port>, PlanError> {
    let mut ports = Vec::new();
    let mut seen = HashSet::new();
    for (host, container) in &arguments.0 {
        let (number, protocols) = match host.split_once('|') {
            Some((number, protocols)) => (number, protocols),
            None => (host.as_str(), "tcp"),
        };
        if number.contains([':', '.', '*']) {
            return Err(PlanError::Unsupported(format!("forwards of one address, as {}, are", shown(host))));
        }
        let host = port_number(number).ok_or_else(|| {
            PlanError::Invalid(format!("{} is no port of the node, as 8080 or 8080|udp", shown(host)))
        })?;
        let container = u16::try_from(*container)
            .ok()
            .filter(|port| *port > 0)
            .ok_or_else(|| PlanError::Invalid(format!("{container} is no port of the container")))?;
        for protocol in protocols.split('+') {
            let protocol = match protocol {
                "tcp" => Protocol::Tcp,
                "udp" => Protocol::Udp,
                other => {
                    return invalid(format!(
                        "protocol {} of port {host} is none of tcp and udp",
                        shown(other)
                    ));
                }
            };
            if !seen.insert((protocol, host)) {
                return invalid(format!("port {host}/{protocol} is given twice"));
            }
            ports.push(Port { protocol, host, container });
        }
    }
    Ok(ports)
}

/// Digits alone: `+80` would be a number, too.
fn port_number(text: &str) -> Option<u16> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|port| digits && *port > 0)
}

#[cfg(test)]
mod tests;
