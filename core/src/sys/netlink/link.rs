//! Links: listing, changing, bridges.

use std::net::Ipv4Addr;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, State};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::packet_core::NetlinkPayload;
use rtnetlink::{
    LinkBridge, LinkBridgePort, LinkMessageBuilder, LinkUnspec, LinkVlan, LinkVxlan, MulticastGroup,
};
use rustix::io::Errno;

use super::{AT_ONCE, Error, Netlink, answer};

/// A link, as far as it matters to a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Number in its network namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// `bridge`, `veth` and so on; empty for hardware.
    pub kind: String,
    /// Hardware address.
    pub address: Vec<u8>,
    /// The bridge or bond it belongs to.
    pub controller: Option<u32>,
    /// Largest packet in bytes.
    pub mtu: u32,
    /// Something is plugged in.
    pub carrier: bool,
    /// How often something was plugged in.
    pub plugged: u32,
    /// State in the sense of RFC 2863.
    pub operstate: String,
    flags: LinkFlags,
}

impl Link {
    fn new(message: LinkMessage) -> Self {
        let mut link = Link {
            index: message.header.index,
            name: String::new(),
            kind: String::new(),
            address: Vec::new(),
            controller: None,
            mtu: 0,
            carrier: false,
            plugged: 0,
            operstate: "unknown".to_owned(),
            flags: message.header.flags,
        };
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name = name,
                LinkAttribute::Address(address) => link.address = address,
                LinkAttribute::Controller(index) => link.controller = Some(index),
                LinkAttribute::Mtu(mtu) => link.mtu = mtu,
                LinkAttribute::Carrier(carrier) => link.carrier = carrier == 1,
                LinkAttribute::CarrierUpCount(count) => link.plugged = count,
                LinkAttribute::OperState(state) => link.operstate = state_name(state).to_owned(),
                LinkAttribute::LinkInfo(infos) => {
                    let kind = infos.iter().find_map(|info| match info {
                        LinkInfo::Kind(kind) => Some(kind.to_string()),
                        _ => None,
                    });
                    link.kind = kind.unwrap_or_default();
                }
                _ => {}
            }
        }
        link
    }

    /// It was set up.
    pub fn is_up(&self) -> bool {
        self.flags.contains(LinkFlags::Up)
    }

    /// It is a bridge.
    pub fn is_bridge(&self) -> bool {
        self.kind == InfoKind::Bridge.to_string()
    }

    /// The hardware address as people write it; empty when it has none.
    pub fn hardware_address(&self) -> String {
        self.address.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
    }

    /// The flags that matter to people.
    pub fn flag_names(&self) -> Vec<String> {
        let names = [
            (LinkFlags::Up, "up"),
            (LinkFlags::Broadcast, "broadcast"),
            (LinkFlags::Loopback, "loopback"),
            (LinkFlags::Pointopoint, "pointtopoint"),
            (LinkFlags::Multicast, "multicast"),
        ];
        names
            .iter()
            .filter(|(flag, _)| self.flags.contains(*flag))
            .map(|(_, name)| (*name).to_owned())
            .collect()
    }
}

fn state_name(state: State) -> &'static str {
    match state {
        State::NotPresent => "notpresent",
        State::Down => "down",
        State::LowerLayerDown => "lowerlayerdown",
        State::Testing => "testing",
        State::Dormant => "dormant",
        State::Up => "up",
        _ => "unknown",
    }
}

/// A VXLAN to be made.
#[derive(Clone, Copy, Debug)]
pub struct Vxlan<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its number.
    pub id: u32,
    /// The link its packets leave by.
    pub on: Option<&'a Link>,
    /// The other end, or the group in which all ends are.
    pub remote: Ipv4Addr,
    /// The UDP port.
    pub port: u16,
}

/// A change of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Set it up.
    Up,
    /// Take it down.
    Down,
    /// Give it another name. The kernel wants it down for that.
    Name(String),
    /// Another largest packet.
    Mtu(u32),
    /// Another hardware address.
    Address([u8; 6]),
    /// Make it a port of a bridge.
    Controller(u32),
    /// Make it no port any more.
    NoController,
    /// As a port of a bridge, it gets back what it sends, when that is for it. With br_netfilter, a bridge does not let go
    /// of a packet that the firewall sends back to where it came from.
    Hairpin,
}

impl Netlink {
    /// All links.
    pub async fn links(&self) -> Result<Vec<Link>, Error> {
        let listed = self.handle.link().get().execute().map_ok(Link::new).try_collect();
        answer("list the links".to_owned(), listed).await
    }

    /// The link of a name.
    pub async fn link(&self, name: &str) -> Result<Link, Error> {
        let mut asked = std::pin::pin!(self.handle.link().get().match_name(name).execute().map_ok(Link::new));
        match answer(format!("find the link {name}"), asked.try_next()).await {
            // Alternative names lead to a link too, and are none that anybody gave us.
            Ok(Some(link)) if link.name == name => Ok(link),
            // ERANGE and EINVAL: no link can have this name.
            Ok(Some(_) | None) | Err(Error::Refused(_, Errno::NODEV | Errno::RANGE | Errno::INVAL)) => {
                Err(Error::NoLink(name.to_owned()))
            }
            Err(e) => Err(e),
        }
    }

    /// Changes a link.
    pub async fn change(&self, link: &Link, change: Change) -> Result<(), Error> {
        let what = format!("change {}: {change:?}", link.name);
        let message: LinkMessageBuilder<LinkUnspec> = LinkUnspec::new_with_index(link.index);
        let message = match change {
            Change::Up => message.up(),
            Change::Down => message.down(),
            Change::Name(name) => message.name(name),
            Change::Mtu(mtu) => message.mtu(mtu),
            Change::Address(address) => message.address(address.to_vec()),
            Change::Controller(index) => message.controller(index),
            Change::NoController => message.nocontroller(),
            Change::Hairpin => {
                let port = LinkBridgePort::new(link.index).hairpin(true).build();
                return answer(what, self.handle.link().set_port(port).execute()).await;
            }
        };
        answer(what, self.handle.link().change(message.build()).execute()).await
    }

    /// Makes a bridge that is down and returns it.
    pub async fn add_bridge(&self, name: &str, address: Option<[u8; 6]>) -> Result<Link, Error> {
        let mut message = LinkBridge::new(name).down();
        if let Some(address) = address {
            message = message.address(address.to_vec());
        }
        answer(format!("make the bridge {name}"), self.handle.link().add(message.build()).execute()).await?;
        self.link(name).await
    }

    /// Makes a VLAN on a link.
    pub async fn add_vlan(&self, name: &str, on: &Link, id: u16) -> Result<(), Error> {
        let message = LinkVlan::new(name, on.index, id);
        answer(format!("make the vlan {name}"), self.handle.link().add(message.build()).execute()).await
    }

    /// Makes a VXLAN, whose packets leave by a link or as the routes say.
    pub async fn add_vxlan(&self, vxlan: &Vxlan<'_>) -> Result<(), Error> {
        let mut message = LinkVxlan::new(vxlan.name, vxlan.id).port(vxlan.port);
        message = match vxlan.remote {
            group if group.is_multicast() => message.group(group),
            remote => message.remote(remote),
        };
        if let Some(on) = vxlan.on {
            message = message.dev(on.index);
        }
        let what = format!("make the vxlan {}", vxlan.name);
        answer(what, self.handle.link().add(message.build()).execute()).await
    }

    /// Waits for a link to go, as one does with the network namespace of its other end. False when it is still there.
    pub async fn until_gone(link: &Link, limit: Duration) -> Result<bool, Error> {
        let place = AT_ONCE.acquire().await.expect("it is never closed");
        let (connection, handle, mut events) =
            rtnetlink::new_multicast_connection(&[MulticastGroup::Link]).map_err(Error::Socket)?;
        let netlink = Netlink { handle, connection: tokio::spawn(connection), _place: place };
        let gone = async {
            // Only now: what happens from here on is heard.
            match netlink.link(&link.name).await {
                Ok(now) if now.index == link.index => {}
                Ok(_) | Err(Error::NoLink(_)) => return Ok(true),
                Err(e) => return Err(e),
            }
            while let Some((event, _)) = events.next().await {
                // A bridge says in the same words that it loses a port.
                if let NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(gone)) = event.payload
                    && gone.header.index == link.index
                    && gone.header.interface_family == AddressFamily::Unspec
                {
                    return Ok(true);
                }
            }
            Ok(false)
        };
        tokio::time::timeout(limit, gone).await.unwrap_or(Ok(false))
    }

    /// Removes a link.
    pub async fn delete_link(&self, link: &Link) -> Result<(), Error> {
        answer(format!("remove {}", link.name), self.handle.link().del(link.index).execute()).await
    }
}
