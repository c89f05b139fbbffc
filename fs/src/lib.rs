//! The flist engine: container root filesystems that start before they are downloaded.
//!
//! Read a cold read in this order: [`fuse`] (the kernel's request), [`filesystem`] (what it means), [`erofs`] (where
//! the bytes are in a data space), [`format::map`] (in which block), then the cache crate, then [`source`].
//! Read a pack in this order: [`pack`], `pack/walk.rs`, `read.rs`, `segment.rs`, `layout.rs`, `encode.rs`, `finish.rs`.

mod aside;
mod beneath;
pub mod car;
pub mod check;
pub mod daemon;
pub mod elf;
pub mod engine;
pub mod erofs;
pub mod filesystem;
pub mod format;
pub mod fuse;
pub mod gateway;
pub mod image;
pub mod ipfs;
pub mod log_quota;
pub mod names;
pub mod pack;
pub mod paths;
pub mod publish;
pub mod reference;
pub mod replay;
pub mod settings;
pub mod source;
pub mod unpack;
