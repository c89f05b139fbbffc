//! What a user writes for an flist: an address, or a name that leads to one, with hints where its blocks may be.
//!
//! ```text
//! REF    = target ["?" hint *("&" hint)]
//! target = CID / "ipfs://" CID / "/ipfs/" CID        the address itself
//!        / "ipns://" NAME / "/ipns/" NAME            a mutable name of the network
//!        / TAG                                       a name of this user: `flist tag`
//! hint   = "gw=" URL                                 a gateway that may have it
//!        / "peer=" MULTIADDR                         a node that may have it
//!        / "profile=" CID                            what will be read first, at most one (`format::profile`)
//! ```
//!
//! `%`, `&`, `#`, `+` and spaces in a hint are percent-encoded. Hints are a stranger's advice: there are few, they hold no
//! credentials, and they are followed to public addresses only ([`public`]), unless the user says otherwise.

mod follow;
mod hints;
pub mod public;
mod resolve;

use std::fmt;
use std::str::FromStr;

use g8_cache::{BadId, BlockId};

pub use follow::{FollowError, Followed, follow};
pub use hints::{BadHint, Hints, MAX_HINTS, Reach};
pub use resolve::{ResolveError, Resolved, resolve};

use crate::names::{BadTag, Tag};

/// Longest reference.
pub const MAX_REFERENCE: usize = 8192;
/// Longest mutable name: a domain, or the hash of a key.
pub const MAX_NAME: usize = 253;

/// See the module's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// What it leads to.
    pub target: Target,
    /// Where the blocks may be.
    pub hints: Hints,
}

/// What a reference leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// An flist.
    Cid(BlockId),
    /// A mutable name of the network: a key's hash or a domain.
    Name(String),
    /// A name of this user.
    Tag(Tag),
}

/// Why a text is no reference.
#[derive(Debug, thiserror::Error)]
pub enum BadReference {
    /// Neither an address nor a name.
    #[error("{text:?} is not the address of an flist: `flist pack` prints one, beginning with bafyrei")]
    Address {
        /// The text.
        text: String,
        /// Why it is no CID.
        #[source]
        source: BadId,
    },
    /// Neither an address nor a name.
    #[error(
        "{text:?} is neither the address of an flist (`flist pack` prints one, beginning with bafyrei) nor a tag"
    )]
    Nothing {
        /// The text.
        text: String,
        /// Why it is no tag.
        #[source]
        source: BadTag,
    },
    /// A mutable name that cannot be one.
    #[error("{0:?} is no name: it has 1 to {MAX_NAME} letters, digits, dots, dashes and underscores")]
    Name(String),
    /// A hint is wrong.
    #[error(transparent)]
    Hint(#[from] BadHint),
    /// It does not end.
    #[error("the reference has {0} bytes, more than {MAX_REFERENCE}")]
    TooLong(usize),
}

impl Reference {
    /// The nodes that may have the blocks, for a source that speaks to nodes; refused as a whole when one of them may not be
    /// followed.
    pub fn peers(&self, reach: Reach) -> Result<&[multiaddr::Multiaddr], BadHint> {
        self.hints.peers(reach)
    }
}

impl FromStr for Reference {
    type Err = BadReference;

    fn from_str(text: &str) -> Result<Reference, BadReference> {
        if text.len() > MAX_REFERENCE {
            return Err(BadReference::TooLong(text.len()));
        }
        let (target, hints) = match text.split_once('?') {
            Some((target, hints)) => (target, hints.parse()?),
            None => (text, Hints::default()),
        };
        Ok(Reference { target: target.parse()?, hints })
    }
}

impl FromStr for Target {
    type Err = BadReference;

    fn from_str(text: &str) -> Result<Target, BadReference> {
        let after = |scheme: &str, path: &str| text.strip_prefix(scheme).or(text.strip_prefix(path));
        if let Some(cid) = after("ipfs://", "/ipfs/") {
            return cid
                .parse()
                .map(Target::Cid)
                .map_err(|source| BadReference::Address { text: text.into(), source });
        }
        if let Some(name) = after("ipns://", "/ipns/") {
            return match is_name(name) {
                true => Ok(Target::Name(name.into())),
                false => Err(BadReference::Name(name.into())),
            };
        }
        match text.parse() {
            Ok(id) => Ok(Target::Cid(id)),
            // What no tag may be, because it is a CID of some kind, is told as one.
            Err(source) if crate::names::is_cid(text) => {
                Err(BadReference::Address { text: text.into(), source })
            }
            Err(_) => text
                .parse()
                .map(Target::Tag)
                .map_err(|source| BadReference::Nothing { text: text.into(), source }),
        }
    }
}

fn is_name(text: &str) -> bool {
    let may = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    (1..=MAX_NAME).contains(&text.len()) && text.bytes().all(may) && !text.starts_with('.')
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.target {
            Target::Cid(id) => write!(f, "{id}")?,
            Target::Name(name) => write!(f, "ipns://{name}")?,
            Target::Tag(tag) => write!(f, "{tag}")?,
        }
        if self.hints.is_empty() { Ok(()) } else { write!(f, "?{}", self.hints) }
    }
}

impl From<BlockId> for Reference {
    fn from(id: BlockId) -> Reference {
        Reference { target: Target::Cid(id), hints: Hints::default() }
    }
}

#[cfg(test)]
mod tests;
