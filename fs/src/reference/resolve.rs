//! From a reference to an address: where names that this machine knows become CIDs. Those of the network are followed by
//! [`follow`](super::follow()).

use g8_cache::BlockId;

use super::{Hints, Reference, Target};
use crate::names::{Kind, Names, NamesError};

/// What a reference leads to now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The flist.
    pub id: BlockId,
    /// Where its blocks may be: what the reference says, then what is known with the name.
    pub hints: Hints,
    /// The name that led there, if it was one.
    pub name: Option<String>,
}

/// Why a name leads nowhere.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// A tag, and nobody can say where names are kept.
    #[error("tag {0:?} cannot be looked up: neither XDG_DATA_HOME nor HOME is set")]
    NoPlace(String),
    /// Nobody gave an address this tag.
    #[error(
        "{0:?} is neither a tag of yours (`flist tag` lists what there is) nor the address of an flist (`flist pack` prints one, beginning with bafyrei)"
    )]
    NoTag(String),
    /// The store of names is broken.
    #[error(transparent)]
    Names(#[from] NamesError),
    /// A name of the network, which nobody here can ask.
    #[error("name {0} cannot be resolved: that takes an ipfs: source")]
    NoResolver(String),
}

/// Follows a reference; `names` are those of this user.
pub fn resolve(reference: &Reference, names: Option<&Names>) -> Result<Resolved, ResolveError> {
    let mut hints = reference.hints.clone();
    match &reference.target {
        Target::Cid(id) => Ok(Resolved { id: *id, hints, name: None }),
        Target::Tag(tag) => {
            let name = tag.to_string();
            let names = names.ok_or_else(|| ResolveError::NoPlace(name.clone()))?;
            let entry =
                names.get(Kind::Tag, tag.as_str())?.ok_or_else(|| ResolveError::NoTag(name.clone()))?;
            hints.extend(&entry.hints);
            Ok(Resolved { id: entry.id, hints, name: Some(name) })
        }
        Target::Name(name) => Err(ResolveError::NoResolver(name.clone())),
    }
}
