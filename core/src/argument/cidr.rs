//! An address with the length of its prefix.

use std::str::FromStr;

use serde::{Serialize, Serializer};

use super::from_text;
use crate::sys::netlink::Cidr;

/// An address and the length of its network's prefix, as `10.0.0.1/24`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network(pub Cidr);

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse().map(Network).map_err(|e: crate::sys::netlink::NoCidr| e.to_string())
    }
}

impl Serialize for Network {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

from_text!(Network, "An address with the length of its prefix, such as 10.0.0.1/24.");
