//! Links, addresses, routes and bridges of the node, one at a time, by name.

mod address;
mod bridge;
mod link;
mod route;

use std::net::IpAddr;

pub use address::{add_address, addresses, delete_address};
pub use bridge::{add_bridge, add_port, delete_bridge, delete_port};
pub use link::{Link, links, rename, set_down, set_mtu, set_up};
pub use route::{Route, add_route, delete_route, routes};

use crate::sys::netlink::{self, Cidr};

/// Why the network stays as it is.
#[derive(Debug, thiserror::Error)]
pub enum IpError {
    /// The kernel says no.
    #[error(transparent)]
    Netlink(#[from] netlink::Error),
    /// It is something else.
    #[error("{0} is no bridge")]
    NoBridge(String),
    /// It belongs to another bridge, or to none.
    #[error("{port} is no port of {bridge}")]
    NoPort {
        /// The link.
        port: String,
        /// The bridge.
        bridge: String,
    },
    /// None fits.
    #[error("no route to {0} like this")]
    NoRoute(String),
    /// More than one fits.
    #[error("{count} routes to {destination} are like this: name the gateway")]
    ManyRoutes {
        /// Where to.
        destination: String,
        /// How many fit.
        count: usize,
    },
    /// IPv4 one way, IPv6 the other.
    #[error("the destination {0} and the gateway {1} are of two families")]
    TwoFamilies(Cidr, IpAddr),
}

#[cfg(test)]
mod tests;
