//! Routes of the main table.

use std::net::IpAddr;

use futures::TryStreamExt;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};

use super::{Cidr, Error, Link, Netlink, answer};

/// A route of the main table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Number of the link it leaves by.
    pub link: u32,
    /// Where to; `None` for all that no other route covers.
    pub destination: Option<Cidr>,
    /// By whom.
    pub gateway: Option<IpAddr>,
    /// How dear it is; the kernel takes the one with the least.
    pub metric: u32,
    message: RouteMessage,
}

impl Netlink {
    /// The unicast routes of the main table, of IPv4 and IPv6.
    pub async fn routes(&self) -> Result<Vec<Route>, Error> {
        let mut routes = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut question = RouteMessage::default();
            question.header.address_family = family;
            let listed = self.handle.route().get(question).execute().try_collect::<Vec<RouteMessage>>();
            let messages = answer("list the routes".to_owned(), listed).await?;
            routes.extend(messages.into_iter().filter_map(route));
        }
        Ok(routes)
    }

    /// Adds a route. Without a gateway, the destination is on the link.
    pub async fn add_route(
        &self,
        link: &Link,
        destination: Option<Cidr>,
        gateway: Option<IpAddr>,
    ) -> Result<(), Error> {
        let what = format!("add the route to {} by {}", shown(destination), link.name);
        let message = leads(link, destination, gateway);
        answer(what, self.handle.route().add(message).execute()).await
    }

    /// Adds a route in the place of another one that is as dear. The kernel takes the one with the least metric.
    pub async fn set_route(
        &self,
        link: &Link,
        destination: Option<Cidr>,
        gateway: Option<IpAddr>,
        metric: u32,
    ) -> Result<(), Error> {
        let what = format!("set the route to {} by {}", shown(destination), link.name);
        let message = costs(leads(link, destination, gateway), metric);
        answer(what, self.handle.route().add(message).replace().execute()).await
    }

    /// Removes what [`Self::set_route`] set.
    pub async fn unset_route(
        &self,
        link: &Link,
        destination: Option<Cidr>,
        gateway: Option<IpAddr>,
        metric: u32,
    ) -> Result<(), Error> {
        let what = format!("remove the route to {} by {}", shown(destination), link.name);
        let message = costs(leads(link, destination, gateway), metric);
        answer(what, self.handle.route().del(message).execute()).await
    }

    /// Removes a route that was listed.
    pub async fn delete_route(&self, route: &Route) -> Result<(), Error> {
        let request = self.handle.route().del(route.message.clone());
        answer(format!("remove the route to {}", shown(route.destination)), request.execute()).await
    }
}

fn shown(destination: Option<Cidr>) -> String {
    destination.map_or_else(|| "default".to_owned(), |destination| destination.to_string())
}

/// A route that is as dear as that.
fn costs(mut route: RouteMessage, metric: u32) -> RouteMessage {
    route.attributes.push(RouteAttribute::Priority(metric));
    route
}

fn leads(link: &Link, destination: Option<Cidr>, gateway: Option<IpAddr>) -> RouteMessage {
    let ipv6 = destination.map(|d| d.address).or(gateway).is_some_and(|address| address.is_ipv6());
    let mut message = RouteMessage::default();
    message.header.address_family = if ipv6 { AddressFamily::Inet6 } else { AddressFamily::Inet };
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Static;
    message.header.kind = RouteType::Unicast;
    // IPv6 knows no scopes of routes.
    message.header.scope = if gateway.is_some() || ipv6 { RouteScope::Universe } else { RouteScope::Link };
    message.attributes.push(RouteAttribute::Oif(link.index));
    if let Some(cidr) = destination {
        message.header.destination_prefix_length = cidr.prefix;
        message.attributes.push(RouteAttribute::Destination(cidr.network().into()));
    }
    if let Some(gateway) = gateway {
        message.attributes.push(RouteAttribute::Gateway(gateway.into()));
    }
    message
}

fn route(message: RouteMessage) -> Option<Route> {
    if message.header.kind != RouteType::Unicast || table(&message) != u32::from(RouteHeader::RT_TABLE_MAIN) {
        return None;
    }
    let (mut link, mut destination, mut gateway, mut metric) = (None, None, None, 0);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(index) => link = Some(*index),
            RouteAttribute::Destination(address) => destination = ip(address),
            RouteAttribute::Gateway(address) => gateway = ip(address),
            RouteAttribute::Priority(priority) => metric = *priority,
            _ => {}
        }
    }
    let prefix = message.header.destination_prefix_length;
    let destination = destination.map(|address| Cidr { address, prefix });
    Some(Route { link: link?, destination, gateway, metric, message })
}

fn table(message: &RouteMessage) -> u32 {
    let long = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Table(table) => Some(*table),
        _ => None,
    });
    long.unwrap_or(u32::from(message.header.table))
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}
