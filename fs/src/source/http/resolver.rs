//! Names of gateways that a stranger named: they lead to public addresses or nowhere.
//!
//! The look-up for a connection is the one that is judged, so a name cannot lead elsewhere a moment later. One address that
//! is not public condemns the name: whoever runs its DNS tries something.

use std::net::SocketAddr;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::reference::public::{self, NotPublic};

/// Most addresses of a name that are looked at.
const MAX_ADDRESSES: usize = 64;

/// See the module's text.
pub(super) struct PublicOnly;

impl Resolve for PublicOnly {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            // The port is that of the URL; the connector puts it in.
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            Ok(Box::new(all_public(found)?.into_iter()) as Addrs)
        })
    }
}

fn all_public(found: impl Iterator<Item = SocketAddr>) -> Result<Vec<SocketAddr>, NotPublic> {
    let found: Vec<SocketAddr> = found.take(MAX_ADDRESSES).collect();
    found.iter().try_for_each(|address| public::judge(address.ip()))?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_that_is_not_public_condemns_a_name_wherever_it_stands() {
        let public = ["1.1.1.1:0", "[2606:4700::1111]:0", "9.9.9.9:0"].map(|text| text.parse().unwrap());
        assert_eq!(all_public(public.into_iter()), Ok(public.to_vec()));
        for bad in ["127.0.0.1:0", "[::1]:0", "10.1.2.3:0", "[::ffff:192.168.0.1]:0", "169.254.169.254:0"] {
            for place in 0..=public.len() {
                let mut mixed = public.to_vec();
                mixed.insert(place, bad.parse().unwrap());
                let refused = all_public(mixed.into_iter()).unwrap_err();
                assert_eq!(refused.address, bad.parse::<SocketAddr>().unwrap().ip(), "{bad} at {place}");
            }
        }
    }
}
