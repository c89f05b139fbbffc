//! What is set on a link, whoever decided it: the plan, a DHCP server, or chance.

use std::fmt;
use std::net::IpAddr;

use crate::sys::netlink::Cidr;

/// Longest name of a domain.
const DOMAIN_MAX: usize = 253;

/// What is set on a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Our address.
    pub address: Cidr,
    /// In the order in which they can be set.
    pub routes: Vec<Route>,
    /// Who resolves names.
    pub resolvers: Vec<IpAddr>,
    /// Where short names are looked for.
    pub domains: Vec<String>,
    /// What somebody wanted beside that, and nobody can use.
    pub left_out: Vec<String>,
}

/// A way to somewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Where to; `None` for all that no other route covers.
    pub destination: Option<Cidr>,
    /// By which router; `None` when all of it is on the link.
    pub gateway: Option<IpAddr>,
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.destination {
            Some(destination) => write!(f, "{destination}")?,
            None => write!(f, "everywhere")?,
        }
        match self.gateway {
            Some(gateway) => write!(f, " by {gateway}"),
            None => write!(f, " on the link"),
        }
    }
}

impl Setting {
    /// An address alone, and the router to everywhere.
    pub fn fixed(address: Cidr, gateway: Option<IpAddr>) -> Self {
        let routes = gateway.map(|_| Route { destination: None, gateway }).into_iter().collect();
        Self { address, routes, resolvers: Vec::new(), domains: Vec::new(), left_out: Vec::new() }
    }

    /// The route to everywhere.
    pub fn way_out(&self) -> Option<&Route> {
        self.routes.iter().find(|route| route.destination.is_none())
    }

    /// The router to everywhere.
    pub fn gateway(&self) -> Option<IpAddr> {
        self.way_out().and_then(|route| route.gateway)
    }
}

/// It goes into a file whose lines mean something.
pub fn is_domain(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
    !name.is_empty() && name.len() <= DOMAIN_MAX && name.bytes().all(plain)
}
