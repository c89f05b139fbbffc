//! Sources and sinks: where blocks come from and go to, named by spec strings that every command shares.
//!
//! | spec | what | read | write |
//! |---|---|---|---|
//! | `dir:PATH` | a folder with one file per block | yes | yes |
//! | `car:FILE` | a CARv1 archive | yes | yes |
//! | `http://HOST`, `https://HOST` | a trustless gateway | yes | - |
//! | `ipfs:`, `ipfs:http://HOST:PORT` | the RPC of an IPFS node | yes | yes, pinned |
//! | `peer:` | the neighbours on the local network, each a gateway | yes | - |
//! | `hint:URL` | the same, named by a reference: followed to public addresses only | yes | - |
//!
//! `cache:FOLDER` is what the cache of another process holds; it is named so to people, and nobody can ask for it by that.

mod cache;
mod car;
mod dir;
mod http;
mod ipfs;
mod peer;
mod spec;

pub use cache::{CacheSourceError, cache_source};
pub use car::{Car, CarError};
pub use dir::{DirStore, Put, StoreError};
pub use http::{BadAddress, ClientError, FileError, Gateway, fetch_file};
pub(crate) use http::{Way, build as client, is_about_tls};
pub(crate) use peer::is_neighbour;
pub use peer::{AnnounceError, Announcement, PeerError};
pub(crate) use spec::data_folder;
pub use spec::{
    SourceOptions, Spec, SpecError, default_store, follow_neighbours, open_sources, open_sources_left,
    open_sources_of,
};
