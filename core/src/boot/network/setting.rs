//! What is set on a link, whoever decided it: the plan, a DHCP server, or chance.

use std::net::IpAddr;

use crate::sys::netlink::Cidr;

/// Longest name of a domain.
const DOMAIN_MAX: usize = 253;

/// What is set on a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Our address.
    pub address: Cidr,
    /// Where to, `None` for all, and by which router.
    pub routes: Vec<(Option<Cidr>, IpAddr)>,
    /// Who resolves names.
    pub resolvers: Vec<IpAddr>,
    /// Where short names are looked for.
    pub domains: Vec<String>,
}

impl Setting {
    /// An address alone, and the router to everywhere.
    pub fn fixed(address: Cidr, gateway: Option<IpAddr>) -> Self {
        let routes = gateway.map(|gateway| (None, gateway)).into_iter().collect();
        Self { address, routes, resolvers: Vec::new(), domains: Vec::new() }
    }

    /// The router to everywhere.
    pub fn gateway(&self) -> Option<IpAddr> {
        self.routes.iter().find(|(destination, _)| destination.is_none()).map(|(_, gateway)| *gateway)
    }
}

/// It goes into a file whose lines mean something.
pub fn is_domain(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
    !name.is_empty() && name.len() <= DOMAIN_MAX && name.bytes().all(plain)
}
