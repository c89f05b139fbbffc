//! Addresses of a link.

use super::IpError;
use crate::sys::netlink::{Cidr, Netlink};

/// The addresses of a link, as `10.0.0.1/24`.
pub async fn addresses(name: &str) -> Result<Vec<String>, IpError> {
    let netlink = Netlink::open().await?;
    let link = netlink.link(name).await?;
    let addresses = netlink.addresses(Some(&link)).await?;
    Ok(addresses.into_iter().map(|(_, cidr)| cidr.to_string()).collect())
}

/// Gives a link an address.
pub async fn add_address(name: &str, cidr: Cidr) -> Result<(), IpError> {
    let netlink = Netlink::open().await?;
    let link = netlink.link(name).await?;
    Ok(netlink.add_address(&link, cidr).await?)
}

/// Takes an address from a link.
pub async fn delete_address(name: &str, cidr: Cidr) -> Result<(), IpError> {
    let netlink = Netlink::open().await?;
    let link = netlink.link(name).await?;
    Ok(netlink.delete_address(&link, cidr).await?)
}
