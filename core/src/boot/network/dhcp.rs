//! DHCP, by `mozim`. What a server says is judged here, before anything is set up by it: nobody else knows the crate.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use mozim::{DhcpV4Client, DhcpV4Config, DhcpV4Lease, DhcpV4State};

use crate::sys::netlink::{Cidr, Link};

/// Most routes of a lease.
const ROUTES: usize = 64;
/// Most resolvers: glibc asks no more.
const RESOLVERS: usize = 3;
/// Most domains to search.
const DOMAINS: usize = 6;
/// Longest name of a domain.
const DOMAIN_MAX: usize = 253;

/// Why there is no lease.
#[derive(Debug, thiserror::Error)]
pub enum DhcpError {
    /// Nobody answers, or the last answer was no.
    #[error("no lease: {0}")]
    None(String),
    /// The lease is absurd.
    #[error("a server gives an absurd lease: {0}")]
    Absurd(String),
    /// It ran out before somebody renewed it.
    #[error("nobody renewed it in time")]
    Expired,
}

/// What a server gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Our address.
    pub address: Cidr,
    /// Where to, `None` for all, and by which router.
    pub routes: Vec<(Option<Cidr>, IpAddr)>,
    /// Who resolves names.
    pub resolvers: Vec<Ipv4Addr>,
    /// Where short names are looked for.
    pub domains: Vec<String>,
}

impl Lease {
    /// The router to everywhere.
    pub fn gateway(&self) -> Option<IpAddr> {
        self.routes.iter().find(|(destination, _)| destination.is_none()).map(|(_, gateway)| *gateway)
    }

    fn judge(lease: &DhcpV4Lease) -> Result<Self, DhcpError> {
        let address = lease.yiaddr;
        if !is_host(address) {
            return Err(DhcpError::Absurd(format!("the address {address}")));
        }
        let prefix = prefix(lease.subnet_mask)
            .ok_or_else(|| DhcpError::Absurd(format!("the netmask {}", lease.subnet_mask)))?;
        // Who gives classless routes means them instead of routers (RFC 3442).
        let routes = match &lease.classless_routes {
            Some(routes) => routes
                .iter()
                .filter(|route| is_host(route.router) && route.prefix_length <= 32)
                .map(|route| {
                    let cidr = Cidr { address: route.destination.into(), prefix: route.prefix_length };
                    (Some(cidr).filter(|cidr| cidr.prefix > 0), route.router.into())
                })
                .take(ROUTES)
                .collect(),
            None => {
                let routers = lease.gateways.iter().flatten().filter(|router| is_host(**router));
                routers.take(1).map(|router| (None, (*router).into())).collect()
            }
        };
        let resolvers = lease.dns_srvs.iter().flatten().filter(|server| is_host(**server));
        let domains = lease.domain_search.iter().flatten().chain(&lease.domain_name);
        Ok(Self {
            address: Cidr { address: address.into(), prefix },
            routes,
            resolvers: resolvers.copied().take(RESOLVERS).collect(),
            domains: domains.filter(|domain| is_domain(domain)).take(DOMAINS).cloned().collect(),
        })
    }
}

/// An address that a machine can have.
fn is_host(address: Ipv4Addr) -> bool {
    !(address.is_unspecified()
        || address.is_loopback()
        || address.is_multicast()
        || address.octets()[0] >= 240)
}

/// The length of a netmask that is one.
fn prefix(mask: Ipv4Addr) -> Option<u8> {
    let bits = u32::from(mask);
    let length = bits.leading_ones();
    (length > 0 && bits.count_ones() == length).then_some(length as u8)
}

/// It goes into a file whose lines mean something.
fn is_domain(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
    !name.is_empty() && name.len() <= DOMAIN_MAX && name.bytes().all(plain)
}

/// A client on one NIC.
pub struct Client {
    client: DhcpV4Client,
}

impl Client {
    /// One that gives up after a while, when there is nobody.
    pub async fn new(nic: &Link, patience: Duration) -> Result<Self, DhcpError> {
        let mut config = DhcpV4Config::new(&nic.name);
        config.set_iface_index(nic.index).set_timeout_sec(patience.as_secs() as u32);
        let config = config.set_iface_mac_raw(&nic.address).map_err(none)?.use_mac_as_client_id().clone();
        Ok(Self { client: DhcpV4Client::init(config, None).await.map_err(none)? })
    }

    /// The first lease.
    pub async fn first(&mut self) -> Result<Lease, DhcpError> {
        loop {
            if let DhcpV4State::Done(lease) = self.client.run().await.map_err(none)? {
                return Lease::judge(&lease);
            }
        }
    }

    /// Keeps a lease until it is another one, or none.
    pub async fn next(&mut self, lease: &Lease) -> Result<Lease, DhcpError> {
        loop {
            match self.client.run().await.map_err(none)? {
                DhcpV4State::Done(next) => {
                    let next = Lease::judge(&next)?;
                    if next != *lease {
                        return Ok(next);
                    }
                }
                DhcpV4State::Renewing | DhcpV4State::Rebinding => {}
                DhcpV4State::InitReboot | DhcpV4State::Selecting => return Err(DhcpError::Expired),
            }
        }
    }
}

fn none(e: mozim::DhcpError) -> DhcpError {
    DhcpError::None(e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sane() -> DhcpV4Lease {
        let mut lease = DhcpV4Lease::default();
        lease.yiaddr = [10, 0, 2, 15].into();
        lease.subnet_mask = [255, 255, 255, 0].into();
        lease.gateways = Some(vec![[10, 0, 2, 2].into()]);
        lease
    }

    #[test]
    fn a_lease_is_an_address_a_router_and_resolvers() {
        let mut given = sane();
        given.dns_srvs = Some((1..9).map(|last| [10, 0, 2, last].into()).collect());
        given.domain_name = Some("example.org".into());
        let lease = Lease::judge(&given).unwrap();
        assert_eq!(lease.address.to_string(), "10.0.2.15/24");
        assert_eq!(lease.gateway(), Some(IpAddr::from([10, 0, 2, 2])));
        assert_eq!((lease.resolvers.len(), lease.domains), (RESOLVERS, vec!["example.org".to_owned()]));
    }

    #[test]
    fn absurd_addresses_and_netmasks_are_refused() {
        for address in [[0, 0, 0, 0], [127, 0, 0, 1], [224, 0, 0, 1], [255, 255, 255, 255]] {
            let mut lease = sane();
            lease.yiaddr = address.into();
            assert!(matches!(Lease::judge(&lease), Err(DhcpError::Absurd(_))), "{address:?}");
        }
        for mask in [[0, 0, 0, 0], [255, 0, 255, 0], [0, 255, 255, 255]] {
            let mut lease = sane();
            lease.subnet_mask = mask.into();
            assert!(matches!(Lease::judge(&lease), Err(DhcpError::Absurd(_))), "{mask:?}");
        }
    }

    #[test]
    fn what_would_write_other_lines_into_the_file_of_the_resolver_is_left_out() {
        let mut lease = sane();
        lease.domain_search = Some(["a.org", "x\nnameserver 6.6.6.6", "", "b c"].map(str::to_owned).to_vec());
        lease.dns_srvs = Some(vec![[0, 0, 0, 0].into()]);
        let lease = Lease::judge(&lease).unwrap();
        assert_eq!((lease.domains, lease.resolvers), (vec!["a.org".to_owned()], vec![]));
    }
}
