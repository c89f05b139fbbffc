//! What the kernel does of it: an address and routes on a link, and how they are taken back.

use std::fs;

use rustix::io::Errno;

use crate::boot::network::NetworkError;
use crate::boot::network::setting::{Route, Setting};
use crate::sys::netlink::{self, Cidr, Link, Netlink};

/// Sets something on a link in the place of what was there before. What is there already stays. It returns the routes that are
/// there now, and why others are not: one that is refused is no reason to have no network.
pub async fn lay(
    link: &Link,
    metric: u32,
    before: Option<&Setting>,
    setting: &Setting,
) -> Result<(Vec<Route>, Vec<String>), NetworkError> {
    if let Some(before) = before.filter(|before| before.address != setting.address) {
        take_back(link, metric, before).await?;
    }
    tune(link);
    let netlink = Netlink::open().await?;
    there(netlink.add_address(link, setting.address).await)?;
    let (mut routes, mut refused) = (Vec::new(), Vec::new());
    for route in &setting.routes {
        match netlink.set_route(link, route.destination, route.gateway, metric).await {
            Ok(()) => routes.push(route.clone()),
            Err(netlink::Error::Refused(_, why)) => {
                refused.push(format!("the kernel refuses the route to {route}: {why}"));
            }
            Err(e) => {
                // Each of the others could take as long.
                refused.push(e.to_string());
                break;
            }
        }
    }
    // After the new ones, so that there is always a way.
    for old in before.iter().flat_map(|before| &before.routes).filter(|old| !routes.contains(old)) {
        if let Err(e) = gone(netlink.unset_route(link, old.destination, old.gateway, metric).await) {
            refused.push(e.to_string());
        }
    }
    Ok((routes, refused))
}

/// Takes back what was set on a link. The kernel does not take all routes away with an address.
pub async fn take_back(link: &Link, metric: u32, setting: &Setting) -> Result<(), NetworkError> {
    let netlink = Netlink::open().await?;
    for route in setting.routes.iter().rev() {
        gone(netlink.unset_route(link, route.destination, route.gateway, metric).await)?;
    }
    Ok(gone(netlink.delete_address(link, setting.address).await)?)
}

/// Takes back an address of which nothing else is known, and the routes by routers that were neighbours by it alone: one of
/// a lease would go before those that are configured, and lead nowhere. The routers of some leases are in no network: their
/// routes are told by a metric that nothing else on the link has now.
pub async fn take(link: &Link, address: Cidr, metric: Option<u32>) -> Result<(), NetworkError> {
    let netlink = Netlink::open().await?;
    gone(netlink.delete_address(link, address).await)?;
    let left = netlink.addresses(Some(link)).await?;
    let by_it = |router| address.contains(router) && !left.iter().any(|(_, other)| other.contains(router));
    let routes = netlink.routes().await?.into_iter().filter(|route| route.link == link.index);
    for route in routes.filter(|route| route.gateway.is_some_and(by_it) || metric == Some(route.metric)) {
        gone(netlink.delete_route(&route).await)?;
    }
    Ok(())
}

/// What the kernel should do with addresses, and does not do by itself. Where it has no such switch, it is as it always was.
fn tune(link: &Link) {
    let switches = [
        // A route by a cable that is pulled leads nowhere, and must not hide one that does.
        "ignore_routes_with_linkdown",
        // With the first address of a network, it would take all others of that network away.
        "promote_secondaries",
    ];
    for switch in switches {
        let file = format!("/proc/sys/net/ipv4/conf/{}/{switch}", link.name);
        if let Err(e) = fs::write(&file, "1") {
            tracing::debug!("{file}: {e}");
        }
    }
}

/// What is there already is as good.
fn there(done: Result<(), netlink::Error>) -> Result<(), netlink::Error> {
    match done {
        Err(netlink::Error::Refused(_, Errno::EXIST)) => Ok(()),
        done => done,
    }
}

/// What is gone already is as good.
fn gone(done: Result<(), netlink::Error>) -> Result<(), netlink::Error> {
    match done {
        Err(netlink::Error::Refused(_, Errno::ADDRNOTAVAIL | Errno::NODEV | Errno::SRCH)) => Ok(()),
        done => done,
    }
}
