//! Edges to the system: kernel interfaces and tools, one file each. They know no command and no domain.

pub mod arp;
pub mod block;
pub mod btrfs;
pub mod capacity;
#[cfg(test)]
pub mod loop_device;
pub mod lsblk;
pub mod mount_table;
#[cfg(test)]
pub mod namespace;
pub mod netlink;
pub mod nft;
pub mod parted;
pub mod signature;
pub mod text;
pub mod tool;
