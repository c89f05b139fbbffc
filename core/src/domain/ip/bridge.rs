//! Bridges as plain links, and their ports. What makes a network of a bridge is the domain `bridge`.

use super::IpError;
use crate::sys::netlink::{Change, Link, Netlink};

/// Makes a bridge, which is down and has no address.
pub async fn add_bridge(name: &str, address: Option<[u8; 6]>) -> Result<(), IpError> {
    Netlink::open().await?.add_bridge(name, address).await?;
    Ok(())
}

/// Removes a bridge.
pub async fn delete_bridge(name: &str) -> Result<(), IpError> {
    let netlink = Netlink::open().await?;
    let bridge = find(&netlink, name).await?;
    Ok(netlink.delete_link(&bridge).await?)
}

/// Makes a link a port of a bridge.
pub async fn add_port(name: &str, port: &str) -> Result<(), IpError> {
    let netlink = Netlink::open().await?;
    let bridge = find(&netlink, name).await?;
    let port = netlink.link(port).await?;
    Ok(netlink.change(&port, Change::Controller(bridge.index)).await?)
}

/// Makes a port of a bridge a link of its own.
pub async fn delete_port(name: &str, port: &str) -> Result<(), IpError> {
    let netlink = Netlink::open().await?;
    let bridge = find(&netlink, name).await?;
    let port = netlink.link(port).await?;
    if port.controller != Some(bridge.index) {
        return Err(IpError::NoPort { port: port.name, bridge: bridge.name });
    }
    Ok(netlink.change(&port, Change::NoController).await?)
}

async fn find(netlink: &Netlink, name: &str) -> Result<Link, IpError> {
    let link = netlink.link(name).await?;
    if link.is_bridge() { Ok(link) } else { Err(IpError::NoBridge(link.name)) }
}
