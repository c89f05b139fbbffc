//! ARP for IPv4 over Ethernet (RFC 826), on one link: asking who has an address, and saying who has it.

use std::ffi::c_int;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::addr::{SocketAddrArg, SocketAddrLen, SocketAddrOpaque};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, sendto, socket_with,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::netlink::Link;

/// The protocol as Ethernet calls it.
const ETHERTYPE: u16 = 0x0806;
/// Length of a packet.
const LENGTH: usize = 28;
/// What each packet begins with: Ethernet, IPv4, and how long their addresses are.
const HEAD: [u8; 6] = [0, 1, 8, 0, 6, 4];
const REQUEST: u16 = 1;
const REPLY: u16 = 2;
/// The hardware address of everybody.
const EVERYBODY: [u8; 6] = [0xff; 6];

/// What a packet says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// It asks, and does not answer.
    pub asks: bool,
    /// The hardware address of who sent it.
    pub hardware: [u8; 6],
    /// The address of who sent it; unspecified in a probe.
    pub sender: Ipv4Addr,
    /// The address that it is about.
    pub target: Ipv4Addr,
}

impl Packet {
    /// Asks whether anybody has an address, without saying that one has it oneself (RFC 5227, 2.1.1).
    pub fn probe(hardware: [u8; 6], address: Ipv4Addr) -> Self {
        Self { asks: true, hardware, sender: Ipv4Addr::UNSPECIFIED, target: address }
    }

    /// Says who has an address (RFC 5227, 2.3).
    pub fn announcement(hardware: [u8; 6], address: Ipv4Addr) -> Self {
        Self { asks: true, hardware, sender: address, target: address }
    }

    /// Somebody else has the address, or is about to take it (RFC 5227, 2.1.1 and 2.4).
    pub fn conflicts(&self, own: [u8; 6], address: Ipv4Addr) -> bool {
        let probes = self.asks && self.sender.is_unspecified() && self.target == address;
        self.hardware != own && (self.sender == address || probes)
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let packet: &[u8; LENGTH] = bytes.get(..LENGTH)?.try_into().ok()?;
        let operation = u16::from_be_bytes([packet[6], packet[7]]);
        if packet[..6] != HEAD || ![REQUEST, REPLY].contains(&operation) {
            return None;
        }
        let address =
            |at: usize| Ipv4Addr::from([packet[at], packet[at + 1], packet[at + 2], packet[at + 3]]);
        let hardware = packet[8..14].try_into().ok()?;
        Some(Self { asks: operation == REQUEST, hardware, sender: address(14), target: address(24) })
    }

    fn bytes(&self) -> [u8; LENGTH] {
        let mut packet = [0; LENGTH];
        packet[..6].copy_from_slice(&HEAD);
        packet[6..8].copy_from_slice(&if self.asks { REQUEST } else { REPLY }.to_be_bytes());
        packet[8..14].copy_from_slice(&self.hardware);
        packet[14..18].copy_from_slice(&self.sender.octets());
        packet[24..].copy_from_slice(&self.target.octets());
        packet
    }
}

/// A socket that sees all ARP packets of a link.
#[derive(Debug)]
pub struct Arp {
    socket: AsyncFd<OwnedFd>,
    link: u32,
    hardware: [u8; 6],
}

impl Arp {
    /// Opens one on a link of the network namespace of the calling thread.
    pub fn open(link: &Link) -> io::Result<Self> {
        let hardware = link.address[..].try_into().map_err(|_| io::ErrorKind::Unsupported)?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        // Without a protocol it hears nothing, until it is bound to one and to the link.
        let socket = socket_with(AddressFamily::PACKET, SocketType::DGRAM, flags, None)?;
        bind(&socket, &Address::new(link.index, [0; 6]))?;
        // SAFETY: an OwnedFd stays the same descriptor, and open, as long as it lives.
        let socket = unsafe { AsyncFd::register(socket) }?;
        Ok(Self { socket, link: link.index, hardware })
    }

    /// The hardware address of the link.
    pub fn hardware(&self) -> [u8; 6] {
        self.hardware
    }

    /// Tells everybody.
    pub async fn send(&self, packet: &Packet) -> io::Result<()> {
        let (bytes, to) = (packet.bytes(), Address::new(self.link, EVERYBODY));
        let send = |socket: &OwnedFd| Ok(sendto(socket, &bytes, SendFlags::empty(), &to)?);
        self.socket.async_io(Interest::WRITABLE, send).await.map(drop)
    }

    /// The next packet that is one.
    pub async fn receive(&self) -> io::Result<Packet> {
        loop {
            let mut bytes = [0; LENGTH];
            let receive = |socket: &OwnedFd| Ok(recv(socket, &mut bytes[..], RecvFlags::empty())?.1);
            match self.socket.async_io(Interest::READABLE, receive).await {
                Ok(length) => {
                    if let Some(packet) = Packet::parse(&bytes[..length.min(LENGTH)]) {
                        return Ok(packet);
                    }
                }
                // Said once when the link goes down; it may come back.
                Err(e) if Errno::from_io_error(&e) == Some(Errno::NETDOWN) => {}
                Err(e) => return Err(e),
            }
        }
    }
}

/// An address of a link, packet(7).
struct Address(libc::sockaddr_ll);

impl Address {
    fn new(link: u32, hardware: [u8; 6]) -> Self {
        let mut padded = [0; 8];
        padded[..6].copy_from_slice(&hardware);
        Self(libc::sockaddr_ll {
            sll_family: libc::AF_PACKET as u16,
            sll_protocol: ETHERTYPE.to_be(),
            sll_ifindex: link as c_int,
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 6,
            sll_addr: padded,
        })
    }
}

// SAFETY: the pointer leads to a whole sockaddr_ll, which lives as long as `self`.
unsafe impl SocketAddrArg for Address {
    unsafe fn with_sockaddr<R>(&self, f: impl FnOnce(*const SocketAddrOpaque, SocketAddrLen) -> R) -> R {
        f((&raw const self.0).cast(), size_of::<libc::sockaddr_ll>() as SocketAddrLen)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OWN: [u8; 6] = [2, 0, 0, 0, 0, 1];
    const OTHER: [u8; 6] = [2, 0, 0, 0, 0, 2];
    const WANTED: Ipv4Addr = Ipv4Addr::new(10, 254, 254, 7);

    #[test]
    fn who_has_the_address_or_probes_for_it_is_a_conflict_and_nobody_else_is() {
        let reply = Packet { asks: false, hardware: OTHER, sender: WANTED, target: Ipv4Addr::UNSPECIFIED };
        for packet in [Packet::probe(OTHER, WANTED), Packet::announcement(OTHER, WANTED), reply] {
            assert!(packet.conflicts(OWN, WANTED), "{packet:?}");
            assert!(!packet.conflicts(OTHER, WANTED) && !packet.conflicts(OWN, [10, 254, 254, 8].into()));
        }
        // Somebody who has another address asks for ours, as neighbours do.
        let asked = Packet { sender: [10, 254, 254, 9].into(), ..Packet::probe(OTHER, WANTED) };
        assert!(!asked.conflicts(OWN, WANTED));
    }

    #[test]
    fn a_probe_is_what_the_standard_draws() {
        let mut expected = vec![0, 1, 8, 0, 6, 4, 0, 1];
        expected.extend(OWN);
        expected.extend([0; 10]);
        expected.extend([10, 254, 254, 7]);
        assert_eq!(Packet::probe(OWN, WANTED).bytes()[..], expected);
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_packet_that_is_written_the_same_or_none(
            bytes in proptest::collection::vec(any::<u8>(), 0..64),
            begins_well in any::<bool>(),
        ) {
            let mut bytes = bytes;
            if begins_well && bytes.len() >= 8 {
                bytes[..6].copy_from_slice(&HEAD);
                (bytes[6], bytes[7]) = (0, 1 + bytes[7] % 2);
            }
            if let Some(packet) = Packet::parse(&bytes) {
                prop_assert_eq!(Packet::parse(&packet.bytes()), Some(packet));
                prop_assert_eq!(&packet.bytes()[..18], &bytes[..18]);
            } else {
                prop_assert!(!begins_well || bytes.len() < LENGTH);
            }
        }
    }
}
