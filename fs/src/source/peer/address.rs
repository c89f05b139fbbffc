//! Where a neighbour is: the best of the addresses it claims, if that is on one of our links.
//!
//! mDNS is spoken on one link, so an honest neighbour has an address there. Any other one (of this machine, of another
//! network, of the Internet) is where somebody wants us to send requests to.

use std::net::{IpAddr, SocketAddr, SocketAddrV6};

use if_addrs::{IfAddr, Interface};
use mdns_sd::ScopedIp;

/// Addresses of one neighbour that are looked at.
const MAX_CLAIMED: usize = 32;

/// The address to ask, if there is one: IPv4 before IPv6, link-local last, then the lowest, so that the same claims lead to the
/// same place.
pub(super) fn choose<'a>(
    claimed: impl IntoIterator<Item = &'a ScopedIp>,
    port: u16,
    interfaces: &[Interface],
) -> Option<SocketAddr> {
    if !is_sane(port) {
        return None;
    }
    let usable = claimed.into_iter().take(MAX_CLAIMED).filter_map(|ip| on_link(ip, port, interfaces));
    usable.min_by_key(|address| (is_link_local(&address.ip()), address.is_ipv6(), *address))
}

/// The ports below belong to services of other kinds, which do not expect our requests.
fn is_sane(port: u16) -> bool {
    port == 80 || port >= 1024
}

/// The address with the link it is on, unless it is ours or on none.
fn on_link(ip: &ScopedIp, port: u16, interfaces: &[Interface]) -> Option<SocketAddr> {
    let (ip, scope) = match ip {
        ScopedIp::V4(v4) => (IpAddr::V4(*v4.addr()), None),
        ScopedIp::V6(v6) => (IpAddr::V6(*v6.addr()), Some(v6.scope_id().index)),
        // It is not exhaustive, and there is no third kind.
        _ => return None,
    };
    let links = || interfaces.iter().filter(|interface| !interface.is_loopback());
    if ip.is_loopback() || ip.is_multicast() || ip.is_unspecified() || links().any(|ours| ours.ip() == ip) {
        return None;
    }
    if let (IpAddr::V6(v6), Some(scope)) = (ip, scope)
        && is_link_local(&ip)
    {
        let is_link = links().any(|ours| ours.index == Some(scope));
        return is_link.then(|| SocketAddrV6::new(v6, port, 0, scope).into());
    }
    links().any(|ours| shares_prefix(&ours.addr, ip)).then(|| SocketAddr::new(ip, port))
}

fn is_link_local(ip: &IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

/// Whether `ip` is on the link of an address of ours. Everything is on that of a mask of zeros, so that one does not count.
fn shares_prefix(ours: &IfAddr, ip: IpAddr) -> bool {
    match (ours, ip) {
        (IfAddr::V4(ours), IpAddr::V4(ip)) => {
            let mask = u32::from(ours.netmask);
            mask != 0 && (u32::from(ours.ip) ^ u32::from(ip)) & mask == 0
        }
        (IfAddr::V6(ours), IpAddr::V6(ip)) => {
            let mask = u128::from(ours.netmask);
            mask != 0 && (u128::from(ours.ip) ^ u128::from(ip)) & mask == 0
        }
        (IfAddr::V4(_), IpAddr::V6(_)) | (IfAddr::V6(_), IpAddr::V4(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use if_addrs::{IfOperStatus, Ifv4Addr, Ifv6Addr};

    use super::*;

    fn interface(name: &str, index: u32, addr: IfAddr) -> Interface {
        Interface {
            name: name.into(),
            addr,
            index: Some(index),
            oper_status: IfOperStatus::Up,
            is_p2p: false,
        }
    }

    fn v4(ip: &str, netmask: &str) -> IfAddr {
        let (ip, netmask) = (ip.parse().unwrap(), netmask.parse().unwrap());
        IfAddr::V4(Ifv4Addr {
            ip,
            netmask,
            prefixlen: u32::from(netmask).count_ones() as u8,
            broadcast: None,
        })
    }

    fn v6(ip: &str, prefixlen: u8) -> IfAddr {
        let netmask = (u128::MAX << (128 - prefixlen)).into();
        IfAddr::V6(Ifv6Addr { ip: ip.parse().unwrap(), netmask, prefixlen, broadcast: None })
    }

    fn ours() -> Vec<Interface> {
        vec![
            interface("lo", 1, v4("127.0.0.1", "255.0.0.0")),
            interface("eth0", 2, v4("10.0.0.1", "255.255.255.0")),
            interface("eth0", 2, v6("fd00:1::1", 64)),
            interface("tun0", 3, v4("172.16.0.1", "0.0.0.0")),
        ]
    }

    fn chosen(claimed: &[&str], port: u16) -> Option<String> {
        let claimed: Vec<ScopedIp> =
            claimed.iter().map(|ip| ScopedIp::from(ip.parse::<IpAddr>().unwrap())).collect();
        choose(&claimed, port, &ours()).map(|address| address.to_string())
    }

    #[test]
    fn the_best_address_on_a_link_of_ours_is_asked() {
        assert_eq!(chosen(&["fd00:1::7", "10.0.0.9", "10.0.0.7"], 8080).unwrap(), "10.0.0.7:8080");
        assert_eq!(chosen(&["8.8.8.8", "fd00:1::7"], 80).unwrap(), "[fd00:1::7]:80");
    }

    #[test]
    fn what_is_elsewhere_or_ourselves_or_no_gateway_is_not_asked() {
        for elsewhere in [
            "8.8.8.8",
            "10.0.1.7",
            "127.0.0.1",
            "127.9.9.9",
            "0.0.0.0",
            "224.0.0.251",
            "172.16.0.9",
            "::1",
            "fd00:2::7",
            "2001:db8::1",
            "ff02::fb",
            "10.0.0.1",
            "fd00:1::1",
            "169.254.1.1",
            "fe80::1",
        ] {
            assert_eq!(chosen(&[elsewhere], 8080), None, "{elsewhere}");
        }
        for port in [0, 22, 25, 443, 1023] {
            assert_eq!(chosen(&["10.0.0.7"], port), None, "{port}");
        }
    }
}
