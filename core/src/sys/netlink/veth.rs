//! Pairs of virtual ethernet links (veth(4)), the other end of which is born in another network namespace.
//!
//! One message makes both ends, with all that they shall be. Moving an end that was born here takes thirty times as long:
//! the kernel waits for everybody who might look at it.

use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_packet_route::link::{InfoData, InfoKind, InfoVeth};
use rtnetlink::{LinkMessageBuilder, LinkUnspec, LinkVeth};

use super::{Error, Netlink, answer};

/// A pair of links. The end here is up from the start; the other one cannot be, until it has its end here.
#[derive(Clone, Copy, Debug)]
pub struct Veth<'a> {
    /// Name of the end here.
    pub name: &'a str,
    /// Hardware address of the end here.
    pub address: [u8; 6],
    /// Number of the bridge that the end here is a port of.
    pub controller: u32,
    /// Largest packet of both.
    pub mtu: u32,
    /// Where the other end is.
    pub netns: BorrowedFd<'a>,
    /// Name of the other end.
    pub peer: &'a str,
    /// Hardware address of the other end.
    pub peer_address: [u8; 6],
}

impl Netlink {
    /// Makes a pair of links.
    pub async fn add_veth(&self, veth: &Veth<'_>) -> Result<(), Error> {
        let peer: LinkMessageBuilder<LinkUnspec> = LinkUnspec::new_with_name(veth.peer);
        let peer = peer.address(veth.peer_address.to_vec()).mtu(veth.mtu);
        let peer = peer.setns_by_fd(veth.netns.as_raw_fd()).build();
        let pair = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
            .name(veth.name)
            .address(veth.address.to_vec())
            .mtu(veth.mtu)
            .controller(veth.controller)
            .up()
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)));
        let what = format!("make the link {} with {} at its other end", veth.name, veth.peer);
        answer(what, self.handle.link().add(pair.build()).execute()).await
    }
}
