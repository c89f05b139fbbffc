//! What a node administrates. One module a domain; none knows the insides of another, and none knows a command.

pub mod bridge;
pub mod btrfs;
pub mod disk;
pub mod filesystem;
pub mod flist;
pub mod info;
pub mod ip;
pub mod nft;
pub mod process;

use std::sync::Arc;

use crate::paths::Paths;

/// What the domains of a node keep from one command to the next.
#[derive(Debug)]
pub struct Domains {
    /// The files that callers hold open.
    pub files: Arc<filesystem::Files>,
    /// The firewall.
    pub firewall: Arc<nft::Firewall>,
    /// The bridges.
    pub bridges: bridge::Bridges,
}

impl Domains {
    /// Those of a node with these folders.
    pub fn new(paths: &Paths, input: nft::InputPolicy) -> Self {
        let firewall = Arc::new(nft::Firewall::new(input));
        let bridges = bridge::Bridges::new(paths.run().join("bridges"), firewall.clone());
        Domains { files: Arc::default(), firewall, bridges }
    }
}
