//! Names and hardware addresses of links.

use std::fmt;
use std::ops::Deref;
use std::str::FromStr;

use super::{from_text, shown};

/// `IFNAMSIZ` without its NUL (netdevice(7)).
const MAX: usize = 15;

/// A name that a link can have, and that means nothing else to any tool: no blanks, no quotes, no leading dash.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InterfaceName(String);

impl FromStr for InterfaceName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-@".contains(c);
        let starts_well = text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
        if !starts_well || text.len() > MAX || !text.chars().all(plain) {
            return Err(format!(
                "{} is no name of a link: 1 to {MAX} letters, digits, '.', '_', '-' and '@', a letter or digit first",
                shown(text)
            ));
        }
        Ok(InterfaceName(text.to_owned()))
    }
}

from_text!(InterfaceName, "Name of a link, such as eth0.");

impl Deref for InterfaceName {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A hardware address of one link, as `02:00:00:00:00:01`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HardwareAddress(pub [u8; 6]);

impl FromStr for HardwareAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refused = || format!("{} is no hardware address, such as 02:00:00:00:00:01", shown(text));
        let mut bytes = [0; 6];
        let mut parts = text.split([':', '-']);
        for byte in &mut bytes {
            let part = parts.next().filter(|p| p.len() == 2 && p.bytes().all(|b| b.is_ascii_hexdigit()));
            *byte = u8::from_str_radix(part.ok_or_else(refused)?, 16).map_err(|_| refused())?;
        }
        // A group address, or none at all, is nobody's.
        if parts.next().is_some() || bytes[0] & 1 != 0 || bytes == [0; 6] {
            return Err(refused());
        }
        Ok(HardwareAddress(bytes))
    }
}

from_text!(HardwareAddress, "Hardware address, such as 02:00:00:00:00:01.");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_a_tool_could_misread_are_refused() {
        for text in ["", "-a", ".", "..", "a b", "a/b", "a\"", "a\0", "sixteen-bytes-xx", "é", "a;b", "a*"] {
            assert!(text.parse::<InterfaceName>().is_err(), "{text:?}");
        }
        for text in ["eth0", "br-1.5", "enp0s31f6", "_x", "fifteen-bytes-x", "veth@1"] {
            assert_eq!(&*text.parse::<InterfaceName>().unwrap(), text);
        }
    }

    #[test]
    fn a_hardware_address_is_one_links() {
        let address: HardwareAddress = "02:ab:CD:00:00:01".parse().unwrap();
        assert_eq!(address, HardwareAddress([2, 0xab, 0xcd, 0, 0, 1]));
        for text in [
            "",
            "02:00",
            "01:00:00:00:00:01",
            "00:00:00:00:00:00",
            "02:00:00:00:00:01:02",
            "0g:00:00:00:00:01",
        ] {
            assert!(text.parse::<HardwareAddress>().is_err(), "{text:?}");
        }
    }
}
