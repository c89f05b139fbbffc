//! The number of an overlay network.

use std::fmt;
use std::str::FromStr;

/// Digits of a number.
pub const DIGITS: usize = 16;

/// The number of an overlay network: 16 hexadecimal digits. It becomes part of scripts and of a kernel's arguments, so it is
/// nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkId(String);

impl FromStr for NetworkId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.len() == DIGITS && text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Ok(Self(text.to_ascii_lowercase()));
        }
        let start: String = text.chars().take(2 * DIGITS).collect();
        Err(format!("{start:?} is no number of a network: it has {DIGITS} hexadecimal digits"))
    }
}

impl fmt::Display for NetworkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
