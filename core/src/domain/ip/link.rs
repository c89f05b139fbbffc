//! Links.

use std::collections::HashMap;

use schemars::JsonSchema;
use serde::Serialize;

use super::IpError;
use crate::sys::netlink::{Change, Netlink};

/// A link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Link {
    /// Its name.
    pub name: String,
    /// `bridge`, `veth` and so on; `device` for hardware.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its hardware address; empty when it has none.
    pub hwaddr: String,
    /// The bridge or bond it belongs to; empty when none.
    pub master: String,
    /// It is set up.
    pub up: bool,
    /// Largest packet in bytes.
    pub mtu: u32,
}

/// All links.
pub async fn links() -> Result<Vec<Link>, IpError> {
    let links = Netlink::open().await?.links().await?;
    let names: HashMap<u32, String> = links.iter().map(|l| (l.index, l.name.clone())).collect();
    let master = |index: Option<u32>| index.and_then(|index| names.get(&index)).cloned().unwrap_or_default();
    let link = |l: &crate::sys::netlink::Link| Link {
        name: l.name.clone(),
        kind: if l.kind.is_empty() { "device".to_owned() } else { l.kind.clone() },
        hwaddr: l.hardware_address(),
        master: master(l.controller),
        up: l.is_up(),
        mtu: l.mtu,
    };
    Ok(links.iter().map(link).collect())
}

/// Sets a link up.
pub async fn set_up(name: &str) -> Result<(), IpError> {
    change(name, Change::Up).await
}

/// Takes a link down.
pub async fn set_down(name: &str) -> Result<(), IpError> {
    change(name, Change::Down).await
}

/// Gives a link another name.
pub async fn rename(name: &str, new: &str) -> Result<(), IpError> {
    change(name, Change::Name(new.to_owned())).await
}

/// Sets the largest packet.
pub async fn set_mtu(name: &str, mtu: u32) -> Result<(), IpError> {
    change(name, Change::Mtu(mtu)).await
}

async fn change(name: &str, change: Change) -> Result<(), IpError> {
    let netlink = Netlink::open().await?;
    let link = netlink.link(name).await?;
    Ok(netlink.change(&link, change).await?)
}
