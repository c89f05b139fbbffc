//! Routes of the main table.

use std::collections::HashMap;
use std::net::IpAddr;

use schemars::JsonSchema;
use serde::Serialize;

use super::IpError;
use crate::sys::netlink::{self, Cidr, Netlink};

/// A route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Route {
    /// The link it leaves by.
    pub dev: String,
    /// Where to, as `10.0.0.0/8`; empty for all that no other route covers.
    pub dst: String,
    /// By whom; empty when the destination is on the link.
    pub gw: String,
}

/// All routes of the main table.
pub async fn routes() -> Result<Vec<Route>, IpError> {
    let netlink = Netlink::open().await?;
    let names: HashMap<u32, String> =
        netlink.links().await?.into_iter().map(|link| (link.index, link.name)).collect();
    let route = |route: netlink::Route| Route {
        dev: names.get(&route.link).cloned().unwrap_or_default(),
        dst: route.destination.map(|d| d.to_string()).unwrap_or_default(),
        gw: route.gateway.map(|g| g.to_string()).unwrap_or_default(),
    };
    Ok(netlink.routes().await?.into_iter().map(route).collect())
}

/// Adds a route.
pub async fn add_route(dev: &str, dst: Option<Cidr>, gw: Option<IpAddr>) -> Result<(), IpError> {
    if let (Some(dst), Some(gw)) = (dst, gw)
        && dst.address.is_ipv4() != gw.is_ipv4()
    {
        return Err(IpError::TwoFamilies(dst, gw));
    }
    let netlink = Netlink::open().await?;
    let link = netlink.link(dev).await?;
    Ok(netlink.add_route(&link, dst, gw).await?)
}

/// Removes the one route that is like this.
pub async fn delete_route(dev: &str, dst: Option<Cidr>, gw: Option<IpAddr>) -> Result<(), IpError> {
    let netlink = Netlink::open().await?;
    let link = netlink.link(dev).await?;
    let dst = dst.map(|cidr| Cidr { address: cidr.network(), ..cidr });
    let fits = |route: &netlink::Route| {
        route.link == link.index && route.destination == dst && (gw.is_none() || route.gateway == gw)
    };
    let routes: Vec<netlink::Route> = netlink.routes().await?.into_iter().filter(fits).collect();
    let destination = dst.map_or_else(|| "default".to_owned(), |d| d.to_string());
    match routes.as_slice() {
        [] => Err(IpError::NoRoute(destination)),
        [route] => Ok(netlink.delete_route(route).await?),
        many => Err(IpError::ManyRoutes { destination, count: many.len() }),
    }
}
