//! What a bridge shall be.

use std::net::Ipv4Addr;

use super::BridgeError;
use crate::argument::InterfaceName;
use crate::sys::netlink::Cidr;

/// What a bridge shall be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Its name.
    pub name: InterfaceName,
    /// Its hardware address; a random one when there is none.
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
    /// The node has an address in it, and gives others theirs: containers the lower half of the range, whoever asks by
    /// DHCP the upper one.
    Dnsmasq {
        /// The address and its network.
        network: Cidr,
        /// First address of the range.
        start: Ipv4Addr,
        /// Last address of the range.
        end: Ipv4Addr,
    },
}

impl Mode {
    /// The addresses of the range that containers get, from the first to the last: its lower half. dnsmasq knows nothing
    /// of them, so nobody else can be given one.
    pub fn for_containers(self) -> Option<(Ipv4Addr, Ipv4Addr)> {
        let Mode::Dnsmasq { start, .. } = self else { return None };
        let (first, _) = self.for_dhcp()?;
        (start < first).then(|| (start, Ipv4Addr::from(u32::from(first) - 1)))
    }

    /// The addresses of the range that dnsmasq gives: its upper half, the larger one.
    pub fn for_dhcp(self) -> Option<(Ipv4Addr, Ipv4Addr)> {
        let Mode::Dnsmasq { start, end, .. } = self else { return None };
        let half = u32::from(end).saturating_sub(u32::from(start)).div_ceil(2);
        Some((Ipv4Addr::from(u32::from(start) + half), end))
    }

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
            && !network.is_host()
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

    #[test]
    fn a_range_is_shared_by_containers_and_dhcp() {
        for (start, end, containers, dhcp) in [
            ("10.0.0.2", "10.0.0.2", None, ("10.0.0.2", "10.0.0.2")),
            ("10.0.0.2", "10.0.0.3", Some(("10.0.0.2", "10.0.0.2")), ("10.0.0.3", "10.0.0.3")),
            ("10.0.0.2", "10.0.0.4", Some(("10.0.0.2", "10.0.0.2")), ("10.0.0.3", "10.0.0.4")),
            ("10.0.0.1", "10.0.0.254", Some(("10.0.0.1", "10.0.0.127")), ("10.0.0.128", "10.0.0.254")),
        ] {
            let mode = served("10.0.0.1/24", start, end);
            let pair = |(a, b): (&str, &str)| (a.parse().unwrap(), b.parse().unwrap());
            assert_eq!(mode.for_containers(), containers.map(pair), "{start} to {end}");
            assert_eq!(mode.for_dhcp(), Some(pair(dhcp)), "{start} to {end}");
        }
    }
}
