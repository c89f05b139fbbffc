//! The NICs, from rtnetlink; the speed, which it does not tell, from /sys.

use std::collections::HashMap;

use schemars::JsonSchema;
use serde::Serialize;

use super::InfoError;
use crate::sys::netlink::{self, Netlink};
use crate::sys::text;

/// One NIC.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub struct Nic {
    /// Largest packet in bytes.
    pub mtu: u32,
    /// Its name.
    pub name: String,
    /// Its hardware address; empty when it has none.
    pub hardwareaddr: String,
    /// Of `up`, `broadcast`, `loopback`, `pointtopoint` and `multicast`.
    pub flags: Vec<String>,
    /// Its addresses.
    pub addrs: Vec<NicAddress>,
    /// Mbit/s; 0 when it does not tell.
    pub speed: u32,
    /// Something is plugged in.
    pub carrier: bool,
    /// State in the sense of RFC 2863, as `up`, `down` or `unknown`.
    pub operstate: String,
}

/// An address of a NIC.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct NicAddress {
    /// Address and prefix length, as `10.0.0.1/24`.
    pub addr: String,
}

/// All NICs of the network namespace of the calling thread.
pub async fn nics() -> Result<Vec<Nic>, InfoError> {
    let netlink = Netlink::open().await?;
    let mut addresses: HashMap<u32, Vec<NicAddress>> = HashMap::new();
    for (link, address) in netlink.addresses(None).await? {
        addresses.entry(link).or_default().push(NicAddress { addr: address.to_string() });
    }
    let nic = |link: netlink::Link| Nic {
        addrs: addresses.remove(&link.index).unwrap_or_default(),
        // A link that is down, or that has no speed, answers -1 or EINVAL.
        speed: text::value(format!("/sys/class/net/{}/speed", link.name)).unwrap_or(0),
        flags: link.flag_names(),
        mtu: link.mtu,
        hardwareaddr: link.hardware_address(),
        carrier: link.carrier,
        operstate: link.operstate.clone(),
        name: link.name,
    };
    Ok(netlink.links().await?.into_iter().map(nic).collect())
}
