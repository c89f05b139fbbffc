//! The flist on the wire: one dag-cbor root, the pieces of tree and map, and the shards that name every data block.
//!
//! `fs/FORMAT.md` draws the bytes; the modules here parse and write them. They take bytes and do no I/O, never
//! panic, and bound every length by their input. A root's CID depends on the packed tree, the options and the
//! pinned libzstd alone, so nothing here may look at a clock, a host name or a tool version.

pub mod map;
pub mod piece;
pub mod profile;
pub mod root;
pub mod shard;

pub use map::{BlockMap, Extent, MapBuilder, Part, Place};
pub use profile::Profile;
pub use root::{Root, RunConfig};

/// Why the bytes of a metadata object are not what the format says.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// The bytes are not dag-cbor, or not in its canonical form.
    #[error("{what} is not canonical dag-cbor: {reason}")]
    Cbor {
        /// Which object.
        what: &'static str,
        /// What the decoder said.
        reason: String,
    },
    /// A field has a value the format does not allow.
    #[error("{what}: {reason}")]
    Field {
        /// Which object and field.
        what: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The object was written for a reader of a later format.
    #[error("flist format version {found} is not supported (this reader knows version {known})")]
    Version {
        /// Version in the root.
        found: u64,
        /// Version of this reader.
        known: u64,
    },
    /// A link has a CID kind that cannot occur in an flist.
    #[error("{what}: {source}")]
    Link {
        /// Which list of links.
        what: &'static str,
        /// Why the CID cannot be one of ours.
        #[source]
        source: g8_cache::BadId,
    },
}

impl FormatError {
    pub(crate) fn field(what: &'static str, reason: impl Into<String>) -> Self {
        FormatError::Field { what, reason: reason.into() }
    }
}
