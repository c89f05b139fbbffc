//! The bootstrap file: what a node is told by who runs it, from a server that nobody has to trust.
//!
//! ```text
//! medium::find -> URL -> fetch::fetch -> bytes + signature -> signature::Key::verify -> Document::parse -> judge::Judge::accept
//!                                                              -> follow::Follower tells it -> mounts::show, boot.rs, network
//! ```
//!
//! Nothing of a file is looked at before its signature holds. One that is malformed, of another key, expired, or older than
//! one that was seen changes nothing: the last good one holds.

pub mod document;
pub mod fetch;
pub mod follow;
pub mod judge;
pub mod medium;
pub mod mounts;
pub mod signature;

use crate::paths::Paths;

/// SHA-256 of the password that the file gives which was kept; nothing when there is none.
pub fn password(paths: &Paths) -> Option<String> {
    let key = signature::Key::load(&paths.bootstrap_key()).ok()?;
    let judge = judge::Judge::open(key, &paths.bootstrap());
    judge.kept().and_then(|document| document.redis.as_ref()).map(|redis| redis.password_sha256.0.clone())
}

#[cfg(test)]
mod tests;
