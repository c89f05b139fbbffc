//! What the node is: processors, memory, disks, NICs, system, open ports.
//!
//! The shapes and names are those of gopsutil, which the clients of the predecessor know. Everything is read from /proc and
//! /sys by pure parsers over the text of one file.

mod cpu;
mod disk;
mod host;
mod memory;
mod nic;
mod port;
mod version;

use std::io;
use std::path::PathBuf;

pub use cpu::{Cpu, cpus};
pub use disk::{Partition, partitions};
pub use host::{Host, host};
pub use memory::{Memory, memory};
pub use nic::{Nic, NicAddress, nics};
pub use port::{Port, ports};
pub use version::{Version, version};

use crate::sys::{netlink, text};

/// Why the node cannot say what it is.
#[derive(Debug, thiserror::Error)]
pub enum InfoError {
    /// A file of the kernel cannot be read.
    #[error("reading {0}")]
    Read(PathBuf, #[source] io::Error),
    /// A file of the kernel is not what it was for the last 20 years.
    #[error("{0} has no {1}")]
    Incomplete(&'static str, &'static str),
    /// The kernel does not list the links.
    #[error(transparent)]
    Netlink(#[from] netlink::Error),
}

fn read(path: &str) -> Result<String, InfoError> {
    text::read(path).map_err(|e| InfoError::Read(path.into(), e))
}
