//! What a bridge shall be.

use std::net::{IpAddr, Ipv4Addr};

use super::BridgeError;
use crate::argument::InterfaceName;
use crate::sys::netlink::Cidr;

/// What a bridge shall be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Its name.
    pub name: InterfaceName,
    /// Its hardware address; any when there is none.
    pub address: Option<[u8; 6]>,
    /// Its network.
    pub mode: Mode,
    /// Packets from its network leave the node with the node's address.
    pub nat: bool,
}

/// The network of a bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// None: a mere switch.
    None,
    /// The node has an address in it.
    Static {
        /// The address and its network.
        network: Cidr,
    },
    /// The node has an address in it, and gives others theirs.
    Dnsmasq {
        /// The address and its network.
        network: Cidr,
        /// First address that is given.
        start: Ipv4Addr,
        /// Last address that is given.
        end: Ipv4Addr,
    },
}

impl Mode {
    /// The node's address in it.
    pub fn network(self) -> Option<Cidr> {
        match self {
            Mode::None => None,
            Mode::Static { network } | Mode::Dnsmasq { network, .. } => Some(network),
        }
    }
}

impl Plan {
    /// Checks what is asked for against itself.
    pub fn new(
        name: InterfaceName,
        address: Option<[u8; 6]>,
        mode: Mode,
        nat: bool,
    ) -> Result<Self, BridgeError> {
        let refused = |why: String| Err(BridgeError::Plan(why));
        if let Some(network) = mode.network()
            && !is_host(network)
        {
            return refused(format!("{network} is no address of a host in its network"));
        }
        match (nat, mode.network()) {
            (true, None) => return refused("NAT needs a network: static or dnsmasq".to_owned()),
            (true, Some(network)) if !network.address.is_ipv4() => {
                return refused(format!("NAT is for IPv4, and {network} is not"));
            }
            (true | false, _) => {}
        }
        if let Mode::Dnsmasq { network, start, end } = mode {
            if !network.address.is_ipv4() {
                return refused(format!("dnsmasq gives IPv4 addresses, and {network} is none"));
            }
            for given in [start, end] {
                if !network.contains(given.into()) {
                    return refused(format!("{given} is not in the network of {network}"));
                }
            }
            if start > end {
                return refused(format!("the range from {start} to {end} is empty"));
            }
        }
        Ok(Plan { name, address, mode, nat })
    }
}

/// Neither the network itself nor all of its hosts (RFC 3021 makes an exception for networks of two).
fn is_host(network: Cidr) -> bool {
    if network.address.is_unspecified() || network.address.is_multicast() || network.prefix == 0 {
        return false;
    }
    let IpAddr::V4(address) = network.address else { return true };
    let Some(mask) = network.mask().filter(|_| network.prefix < 31) else { return true };
    let host = u32::from(address) & !u32::from(mask);
    host != 0 && host != !u32::from(mask)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(mode: Mode, nat: bool) -> Result<Plan, BridgeError> {
        Plan::new("br0".parse().unwrap(), None, mode, nat)
    }

    fn fixed(network: &str) -> Mode {
        Mode::Static { network: network.parse().unwrap() }
    }

    fn served(network: &str, start: &str, end: &str) -> Mode {
        Mode::Dnsmasq {
            network: network.parse().unwrap(),
            start: start.parse().unwrap(),
            end: end.parse().unwrap(),
        }
    }

    #[test]
    fn what_makes_sense_is_taken() {
        for (mode, nat) in [
            (Mode::None, false),
            (fixed("10.0.0.1/24"), true),
            (fixed("10.0.0.0/31"), false),
            (fixed("fd00::1/64"), false),
            (served("10.0.0.1/24", "10.0.0.2", "10.0.0.2"), true),
        ] {
            plan(mode, nat).unwrap();
        }
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        for (mode, nat) in [
            (Mode::None, true),
            (fixed("10.0.0.0/24"), false),
            (fixed("10.0.0.255/24"), false),
            (fixed("0.0.0.0/0"), false),
            (fixed("224.0.0.1/4"), false),
            (fixed("fd00::1/64"), true),
            (served("fd00::1/64", "10.0.0.2", "10.0.0.3"), false),
            (served("10.0.0.1/24", "10.0.1.2", "10.0.1.3"), false),
            (served("10.0.0.1/24", "10.0.0.9", "10.0.0.3"), false),
        ] {
            let refused = plan(mode, nat);
            assert!(matches!(refused, Err(BridgeError::Plan(_))), "{mode:?}: {refused:?}");
        }
    }
}
