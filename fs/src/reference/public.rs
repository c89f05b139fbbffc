//! Which addresses are public: what a stranger may send us to. All others belong to a machine, a network or nobody.
//!
//! After the registries of special addresses, <https://www.iana.org/assignments/iana-ipv4-special-registry> and
//! <https://www.iana.org/assignments/iana-ipv6-special-registry>. IPv6 is refused unless it is global unicast. An IPv4 address
//! inside an IPv6 one is judged where it is what a packet would go to (NAT64), and refused in every other form.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An address that hints do not lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{address} is {kind}, not a public address")]
pub struct NotPublic {
    /// The address.
    pub address: IpAddr,
    /// What it is.
    pub kind: &'static str,
}

/// Ranges of IPv4: address, length of the prefix, what it is.
const V4: [([u8; 4], u32, &str); 17] = [
    ([0, 0, 0, 0], 8, "this network"),
    ([10, 0, 0, 0], 8, "private"),
    ([100, 64, 0, 0], 10, "inside a provider's network"),
    ([127, 0, 0, 0], 8, "this machine"),
    // The service that tells cloud machines their secrets is at 169.254.169.254.
    ([169, 254, 0, 0], 16, "link-local"),
    ([172, 16, 0, 0], 12, "private"),
    ([192, 0, 0, 0], 24, "reserved for protocols"),
    ([192, 0, 2, 0], 24, "for documentation"),
    ([192, 88, 99, 0], 24, "a relay of 6to4"),
    ([192, 168, 0, 0], 16, "private"),
    ([198, 18, 0, 0], 15, "for benchmarks"),
    ([198, 51, 100, 0], 24, "for documentation"),
    ([203, 0, 113, 0], 24, "for documentation"),
    // The same service in Azure.
    ([168, 63, 129, 16], 32, "a service of the cloud"),
    ([224, 0, 0, 0], 4, "multicast"),
    ([255, 255, 255, 255], 32, "broadcast"),
    ([240, 0, 0, 0], 4, "reserved"),
];

/// Ranges of IPv6 below 2000::/3 that are not public.
const V6: [([u16; 2], u32, &str); 4] = [
    ([0x2001, 0], 23, "reserved for protocols"),
    ([0x2001, 0xdb8], 32, "for documentation"),
    ([0x2002, 0], 16, "an IPv4 address in 6to4"),
    ([0x3fff, 0], 20, "for documentation"),
];

/// Refuses what is not public.
pub fn judge(address: IpAddr) -> Result<(), NotPublic> {
    let kind = match address {
        IpAddr::V4(v4) => kind_of_v4(v4),
        IpAddr::V6(v6) => kind_of_v6(v6),
    };
    match kind {
        Some(kind) => Err(NotPublic { address, kind }),
        None => Ok(()),
    }
}

fn kind_of_v4(address: Ipv4Addr) -> Option<&'static str> {
    let bits = address.to_bits();
    let is_in =
        |range: &[u8; 4], prefix: u32| (bits ^ Ipv4Addr::from(*range).to_bits()).leading_zeros() >= prefix;
    V4.iter().find(|(range, prefix, _)| is_in(range, *prefix)).map(|(_, _, kind)| *kind)
}

fn kind_of_v6(address: Ipv6Addr) -> Option<&'static str> {
    let bits = address.to_bits();
    let high = (bits >> 96) as u32;
    // 64:ff9b::/96, RFC 6052: a network without IPv4 sends it to the IPv4 address in it.
    if bits >> 32 == 0x0064_ff9b << 64 {
        return kind_of_v4(Ipv4Addr::from_bits(bits as u32));
    }
    let is_in = |range: &[u16; 2], prefix: u32| {
        (high ^ (u32::from(range[0]) << 16 | u32::from(range[1]))).leading_zeros() >= prefix
    };
    if let Some((_, _, kind)) = V6.iter().find(|(range, prefix, _)| is_in(range, *prefix)) {
        return Some(kind);
    }
    match address.segments()[0] {
        0x2000..=0x3fff => None,
        _ if address.is_loopback() => Some("this machine"),
        _ if address.to_ipv4_mapped().is_some() => Some("an IPv4 address in disguise"),
        0xfc00..=0xfdff => Some("private"),
        0xfe80..=0xfebf => Some("link-local"),
        0xff00..=0xffff => Some("multicast"),
        _ => Some("reserved"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_anybody_can_reach_is_public() {
        let private = [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "100.127.255.255",
            "100.100.100.200",
            "127.0.0.1",
            "127.255.255.254",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.192",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.255.255",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.7",
            "203.0.113.9",
            "168.63.129.16",
            "224.0.0.251",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:8.8.8.8",
            "::ffff:127.0.0.1",
            "::8.8.8.8",
            "64:ff9b::7f00:1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::808:808",
            "100::1",
            "2001::1",
            "2001:db8::1",
            "2001:10::1",
            "2002:7f00:1::",
            "2002:808:808::1",
            "3fff::1",
            "3fff:fff::1",
            "5f00::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::fb",
            "4000::1",
        ];
        for text in private {
            let address: IpAddr = text.parse().unwrap();
            let refused = judge(address).expect_err(text);
            assert!(refused.to_string().contains("not a public address"), "{refused}");
        }
        let public = [
            "1.1.1.1",
            "8.8.8.8",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.0.0.1",
            "128.0.0.1",
            "169.253.0.1",
            "169.255.0.1",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.1",
            "192.0.3.1",
            "192.167.1.1",
            "192.169.0.1",
            "198.17.0.1",
            "198.20.0.1",
            "168.63.129.17",
            "223.255.255.255",
            "64:ff9b::808:808",
            "2001:200::1",
            "2001:4860:4860::8888",
            "2606:4700::1111",
            "2a00::1",
            "3ffe::1",
        ];
        for text in public {
            judge(text.parse().unwrap()).unwrap();
        }
    }
}
