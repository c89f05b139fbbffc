//! A name that a user gives to an flist, as `debian/12` or `web.2026-10`.

use std::fmt;
use std::str::FromStr;

use cid::Cid;

/// Longest tag.
pub const MAX_TAG: usize = 128;

/// A name of this user: parts of lower-case letters, digits, dots, dashes and underscores, each beginning with a letter or a
/// digit, joined by slashes. It is no CID, so that nobody can give one another meaning.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tag(String);

/// Why a text is no tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadTag {
    /// Too short or too long.
    #[error("a tag has 1 to {MAX_TAG} characters")]
    Length,
    /// Something else in it.
    #[error(
        "a tag has lower-case letters, digits, and . _ - / between them, and each part begins with a letter or a digit"
    )]
    Character,
    /// An address, or meant to be one.
    #[error("it looks like the address of an flist")]
    Cid,
}

impl Tag {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Tag {
    type Err = BadTag;

    fn from_str(text: &str) -> Result<Tag, BadTag> {
        if !(1..=MAX_TAG).contains(&text.len()) {
            return Err(BadTag::Length);
        }
        let begins = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let may = |byte: u8| begins(byte) || matches!(byte, b'.' | b'_' | b'-');
        let is_part = |part: &str| part.bytes().next().is_some_and(begins) && part.bytes().all(may);
        if !text.split('/').all(is_part) {
            return Err(BadTag::Character);
        }
        if is_cid(text) { Err(BadTag::Cid) } else { Ok(Tag(text.to_owned())) }
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether a text is a CID of any kind, or one of ours with a letter wrong.
pub(crate) fn is_cid(text: &str) -> bool {
    Cid::try_from(text).is_ok() || (text.len() > 50 && (text.starts_with("bafy") || text.starts_with("bafk")))
}
