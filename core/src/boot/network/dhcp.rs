//! DHCP, by `mozim`. What a server says is judged here, before anything is set up by it: nobody else knows the crate.

use std::net::Ipv4Addr;
use std::time::Duration;

use mozim::{DhcpV4Client, DhcpV4Config, DhcpV4Lease, DhcpV4State};

use super::plan::{DOMAINS, RESOLVERS};
use super::setting::{Setting, is_domain};
use crate::sys::netlink::{Cidr, Link};

/// Most routes of a lease.
const ROUTES: usize = 64;

/// Why there is no lease.
#[derive(Debug, thiserror::Error)]
pub enum DhcpError {
    /// The client cannot work.
    #[error("no lease: {0}")]
    None(String),
    /// Nobody answers, or with something that `mozim` leaves out: it says why in its log alone.
    #[error("no lease: no server offers one that makes sense within {0:?}")]
    NoOffer(Duration),
    /// Somebody answers, and then no more.
    #[error("no lease: a server offers one and does not confirm it within {0:?}")]
    NoConfirmation(Duration),
    /// The lease is absurd.
    #[error("a server gives an absurd lease: {0}")]
    Absurd(String),
    /// It ran out before somebody renewed it.
    #[error("nobody renewed it in time")]
    Expired,
}

/// What a server gave, judged.
fn judge(lease: &DhcpV4Lease) -> Result<Setting, DhcpError> {
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
    Ok(Setting {
        address: Cidr { address: address.into(), prefix },
        routes,
        resolvers: resolvers.map(|resolver| (*resolver).into()).take(RESOLVERS).collect(),
        domains: domains.filter(|domain| is_domain(domain)).take(DOMAINS).cloned().collect(),
    })
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

/// A lease as a server gave it, to be asked for again.
#[derive(Debug)]
pub struct Before(DhcpV4Lease);

/// A client on one NIC.
pub struct Client {
    client: DhcpV4Client,
    held: Option<Before>,
}

impl Client {
    /// One that asks first for what it had before, and a server that knows better says no.
    pub async fn new(nic: &Link, before: Option<Before>) -> Result<Self, DhcpError> {
        let mut config = DhcpV4Config::new(&nic.name);
        // Without its own timeout: that would end a good lease whose first renewal nobody answers.
        config.set_iface_index(nic.index);
        let config = config.set_iface_mac_raw(&nic.address).map_err(none)?.use_mac_as_client_id().clone();
        let before = before.map(|Before(lease)| lease);
        let client = DhcpV4Client::init(config, before).await.map_err(none)?;
        Ok(Self { client, held: None })
    }

    /// The first lease, or none when there is nobody for so long.
    pub async fn first(&mut self, patience: Duration) -> Result<Setting, DhcpError> {
        let mut silence = DhcpError::NoOffer(patience);
        let asked = async {
            loop {
                match self.client.run().await.map_err(none)? {
                    DhcpV4State::Done(lease) => return self.hold(*lease),
                    DhcpV4State::Selecting => silence = DhcpError::NoConfirmation(patience),
                    DhcpV4State::InitReboot | DhcpV4State::Renewing | DhcpV4State::Rebinding => {}
                }
            }
        };
        tokio::time::timeout(patience, asked).await.unwrap_or(Err(silence))
    }

    /// Keeps a lease until it is another one, or none: it is good to its end, whether or not somebody answers before.
    pub async fn next(&mut self, now: &Setting) -> Result<Setting, DhcpError> {
        loop {
            match self.client.run().await.map_err(none)? {
                DhcpV4State::Done(next) => {
                    let next = self.hold(*next)?;
                    if next != *now {
                        return Ok(next);
                    }
                }
                DhcpV4State::Renewing | DhcpV4State::Rebinding => {}
                DhcpV4State::InitReboot | DhcpV4State::Selecting => return Err(DhcpError::Expired),
            }
        }
    }

    /// The lease as the server gave it.
    pub fn held(self) -> Option<Before> {
        self.held
    }

    fn hold(&mut self, lease: DhcpV4Lease) -> Result<Setting, DhcpError> {
        let setting = judge(&lease)?;
        self.held = Some(Before(lease));
        Ok(setting)
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
        let lease = judge(&given).unwrap();
        assert_eq!(lease.address.to_string(), "10.0.2.15/24");
        assert_eq!(lease.gateway(), Some([10, 0, 2, 2].into()));
        assert_eq!((lease.resolvers.len(), lease.domains), (RESOLVERS, vec!["example.org".to_owned()]));
    }

    #[test]
    fn absurd_addresses_and_netmasks_are_refused() {
        for address in [[0, 0, 0, 0], [127, 0, 0, 1], [224, 0, 0, 1], [255, 255, 255, 255]] {
            let mut lease = sane();
            lease.yiaddr = address.into();
            assert!(matches!(judge(&lease), Err(DhcpError::Absurd(_))), "{address:?}");
        }
        for mask in [[0, 0, 0, 0], [255, 0, 255, 0], [0, 255, 255, 255]] {
            let mut lease = sane();
            lease.subnet_mask = mask.into();
            assert!(matches!(judge(&lease), Err(DhcpError::Absurd(_))), "{mask:?}");
        }
    }

    #[test]
    fn what_would_write_other_lines_into_the_file_of_the_resolver_is_left_out() {
        let mut lease = sane();
        lease.domain_search = Some(["a.org", "x\nnameserver 6.6.6.6", "", "b c"].map(str::to_owned).to_vec());
        lease.dns_srvs = Some(vec![[0, 0, 0, 0].into()]);
        let lease = judge(&lease).unwrap();
        assert_eq!((lease.domains, lease.resolvers), (vec!["a.org".to_owned()], vec![]));
    }
}
