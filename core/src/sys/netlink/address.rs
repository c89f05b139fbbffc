//! Addresses of links.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use futures::TryStreamExt;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};

use super::{Error, Link, Netlink, answer};

/// An address and the length of its network's prefix, as `10.0.0.1/24`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cidr {
    /// The address.
    pub address: IpAddr,
    /// Length of the prefix in bits.
    pub prefix: u8,
}

impl Cidr {
    /// The first address of the network.
    pub fn network(self) -> IpAddr {
        match self.address {
            IpAddr::V4(address) => Ipv4Addr::from(u32::from(address) & mask4(self.prefix)).into(),
            IpAddr::V6(address) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.prefix)).unwrap_or(0);
                Ipv6Addr::from(u128::from(address) & mask).into()
            }
        }
    }

    /// An address lies in the network.
    pub fn contains(self, address: IpAddr) -> bool {
        self.address.is_ipv4() == address.is_ipv4() && Cidr { address, ..self }.network() == self.network()
    }

    /// Both networks have an address in common.
    pub fn overlaps(self, other: Cidr) -> bool {
        let prefix = self.prefix.min(other.prefix);
        Cidr { prefix, ..self }.contains(other.address)
    }

    /// The address is that of a host: neither the network itself nor all of its hosts (RFC 3021 makes an exception for
    /// networks of two).
    pub fn is_host(self) -> bool {
        if self.address.is_unspecified() || self.address.is_multicast() || self.prefix == 0 {
            return false;
        }
        let IpAddr::V4(address) = self.address else { return true };
        let Some(mask) = self.mask().filter(|_| self.prefix < 31) else { return true };
        let host = u32::from(address) & !u32::from(mask);
        host != 0 && host != !u32::from(mask)
    }

    /// The network mask, when there is such a thing.
    pub fn mask(self) -> Option<Ipv4Addr> {
        self.address.is_ipv4().then(|| Ipv4Addr::from(mask4(self.prefix)))
    }
}

fn mask4(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// Text that is no address with a prefix length.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no address with a prefix length, such as 10.0.0.1/24")]
pub struct NoCidr(String);

impl FromStr for Cidr {
    type Err = NoCidr;

    fn from_str(text: &str) -> Result<Self, NoCidr> {
        let parse = || {
            let (address, prefix) = text.split_once('/')?;
            let address: IpAddr = address.parse().ok()?;
            let most = if address.is_ipv4() { 32 } else { 128 };
            // `+8` would be a number.
            let digits = prefix.bytes().all(|b| b.is_ascii_digit());
            let prefix = prefix.parse().ok().filter(|p| digits && *p <= most)?;
            Some(Cidr { address, prefix })
        };
        parse().ok_or_else(|| NoCidr(text.chars().take(64).collect()))
    }
}

impl Netlink {
    /// The addresses of a link or of all, each with the number of its link.
    pub async fn addresses(&self, link: Option<&Link>) -> Result<Vec<(u32, Cidr)>, Error> {
        let mut request = self.handle.address().get();
        if let Some(link) = link {
            request = request.set_link_index_filter(link.index);
        }
        let listed = request.execute().try_collect::<Vec<AddressMessage>>();
        let messages = answer("list the addresses".to_owned(), listed).await?;
        let addresses = messages.iter().filter_map(|m| Some((m.header.index, cidr(m)?)));
        Ok(addresses.filter(|(index, _)| link.is_none_or(|link| link.index == *index)).collect())
    }

    /// Gives a link an address.
    pub async fn add_address(&self, link: &Link, cidr: Cidr) -> Result<(), Error> {
        let request = self.handle.address().add(link.index, cidr.address, cidr.prefix);
        answer(format!("give {} the address {cidr}", link.name), request.execute()).await
    }

    /// Takes an address from a link.
    pub async fn delete_address(&self, link: &Link, cidr: Cidr) -> Result<(), Error> {
        let mut message = AddressMessage::default();
        message.header.index = link.index;
        message.header.prefix_len = cidr.prefix;
        message.header.family = match cidr.address {
            IpAddr::V4(_) => netlink_packet_route::AddressFamily::Inet,
            IpAddr::V6(_) => netlink_packet_route::AddressFamily::Inet6,
        };
        message.attributes.push(AddressAttribute::Local(cidr.address));
        message.attributes.push(AddressAttribute::Address(cidr.address));
        let request = self.handle.address().del(message);
        answer(format!("take the address {cidr} from {}", link.name), request.execute()).await
    }
}

/// On a point-to-point link, the address is that of the other end, and the local one is ours.
fn cidr(message: &AddressMessage) -> Option<Cidr> {
    let find = |local: bool| {
        message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Local(address) if local => Some(*address),
            AddressAttribute::Address(address) if !local => Some(*address),
            _ => None,
        })
    };
    Some(Cidr { address: find(true).or_else(|| find(false))?, prefix: message.header.prefix_len })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cidr(text: &str) -> Cidr {
        text.parse().unwrap()
    }

    #[test]
    fn networks_are_told_apart_by_their_prefix() {
        assert_eq!(cidr("10.1.2.3/16").network(), IpAddr::from([10, 1, 0, 0]));
        assert_eq!(cidr("10.1.2.3/0").network(), IpAddr::from([0, 0, 0, 0]));
        assert_eq!(cidr("10.1.2.3/32").mask(), Some(Ipv4Addr::BROADCAST));
        assert_eq!(cidr("fd00::1/8").network(), "fd00::".parse::<IpAddr>().unwrap());
        assert_eq!(cidr("::1/0").network(), "::".parse::<IpAddr>().unwrap());
        assert!(cidr("10.0.0.0/8").overlaps(cidr("10.9.9.9/24")));
        assert!(cidr("10.9.9.9/24").overlaps(cidr("10.0.0.0/8")));
        assert!(!cidr("10.0.0.0/24").overlaps(cidr("10.0.1.0/24")));
        assert!(!cidr("0.0.0.0/0").overlaps(cidr("::/0")));
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in
            ["", "10.0.0.1", "10.0.0.1/", "10.0.0.1/33", "10.0.0.1/+8", "::1/129", "a/8", "10.0.0/8", "1/2/3"]
        {
            assert!(text.parse::<Cidr>().is_err(), "{text:?}");
        }
    }
}
