//! Which address a container gets: the next one of a range that no record has, and a hardware address that goes with it.
//!
//! Addresses go round, so that one that was given back rests as long as possible. An address always has the same
//! hardware address on its bridge, so that neighbours that remember the one before are right.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

/// The first address of `range` after `last` that is not taken, or the first one at all.
pub fn next(
    (first, end): (Ipv4Addr, Ipv4Addr),
    taken: &BTreeSet<Ipv4Addr>,
    last: Option<Ipv4Addr>,
) -> Option<Ipv4Addr> {
    let (first, end) = (u32::from(first), u32::from(end));
    let after = last.map(u32::from).filter(|last| (first..end).contains(last)).map_or(first, |last| last + 1);
    // At most as many are passed over as are taken.
    (after..=end).chain(first..after).map(Ipv4Addr::from).find(|address| !taken.contains(address))
}

/// What sets the hardware addresses of this node apart from those of others on the same network.
pub type Salt = [u8; 32];

/// The hardware address of whatever `parts` name: locally administered, and of one link.
pub fn hardware(salt: &Salt, first: u8, parts: &[&[u8]]) -> [u8; 6] {
    let mut hasher = blake3::Hasher::new_keyed(salt);
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
    }
    let mut address = [first; 6];
    address[1..].copy_from_slice(&hasher.finalize().as_bytes()[..5]);
    address
}

/// First byte of the end in a container.
pub const INSIDE: u8 = 0x02;
/// First byte of the end at the bridge: a bridge without an address of its own takes the smallest of its ports, and would
/// change it whenever a container comes or goes.
pub const OUTSIDE: u8 = 0xfe;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn address(last: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 0, 0, last)
    }

    #[test]
    fn addresses_go_round() {
        let range = (address(2), address(4));
        let taken = BTreeSet::from([address(3)]);
        assert_eq!(next(range, &taken, None), Some(address(2)));
        assert_eq!(next(range, &taken, Some(address(2))), Some(address(4)));
        assert_eq!(next(range, &taken, Some(address(4))), Some(address(2)));
        assert_eq!(next(range, &taken, Some(address(9))), Some(address(2)));
        let all = (2..=4).map(address).collect();
        assert_eq!(next(range, &all, Some(address(3))), None);
        let end = (Ipv4Addr::BROADCAST, Ipv4Addr::BROADCAST);
        assert_eq!(next(end, &BTreeSet::new(), Some(Ipv4Addr::BROADCAST)), Some(Ipv4Addr::BROADCAST));
    }

    #[test]
    fn hardware_addresses_are_of_one_link_and_of_this_node() {
        let one = hardware(&[1; 32], INSIDE, &[b"br0", &[10, 0, 0, 2]]);
        assert_eq!(one, hardware(&[1; 32], INSIDE, &[b"br0", &[10, 0, 0, 2]]));
        for other in [
            hardware(&[2; 32], INSIDE, &[b"br0", &[10, 0, 0, 2]]),
            hardware(&[1; 32], INSIDE, &[b"br", b"0\n\x00\x00\x02"]),
            hardware(&[1; 32], OUTSIDE, &[b"br0", &[10, 0, 0, 2]]),
        ] {
            assert_ne!(one, other);
            assert_eq!(other[0] & 3, 2, "locally administered, and no group: {other:?}");
        }
    }

    proptest! {
        /// Against a plain model: whatever is taken and given back, no address is given twice, none outside of the range,
        /// and one is found as long as there is one.
        #[test]
        fn no_address_is_given_twice(first in 0u8..200, length in 0u8..20, steps in prop::collection::vec(any::<Option<u8>>(), 1..200)) {
            let range = (address(first), address(first + length));
            let (mut taken, mut last) = (BTreeSet::new(), None);
            for step in steps {
                match step {
                    None => {
                        let given = next(range, &taken, last);
                        prop_assert_eq!(given.is_none(), taken.len() == usize::from(length) + 1);
                        if let Some(given) = given {
                            prop_assert!(range.0 <= given && given <= range.1);
                            prop_assert!(taken.insert(given));
                            last = Some(given);
                        }
                    }
                    Some(back) => {
                        taken.remove(&address(first + back % (length + 1)));
                    }
                }
            }
        }
    }
}
