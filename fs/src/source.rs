//! Sources and sinks: where blocks come from and go to, named by spec strings that every command shares.
//!
//! | spec | what | read | write |
//! |---|---|---|---|
//! | `dir:PATH` | a folder with one file per block | yes | yes |
//! | `http://HOST`, `https://HOST` | a trustless gateway | yes | - |
//!
//! `cache:FOLDER` is what the cache of another process holds; it is named so to people, and nobody can ask for it by that.

mod cache;
mod dir;
mod http;
mod spec;

pub use cache::{CacheSourceError, cache_source};
pub use dir::{DirStore, Put, StoreError};
pub use http::{BadAddress, ClientError, Gateway};
pub use spec::{SourceOptions, Spec, SpecError, default_store, open_sources};
