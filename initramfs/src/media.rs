//! What machines boot from: a UKI (one EFI program), a disk image for UEFI, and an ISO for BIOS and UEFI, CD and USB.
//!
//! All of them are made from the same kernel and initramfs, and the same bytes each time.

pub mod disk;
pub mod fat;
pub mod ipxe;
pub mod iso;
pub mod uki;

use std::io;
use std::path::{Path, PathBuf};

use crate::tool::ToolError;

/// Seconds since 1970 for tools that want to know what time it is: 2023-11-14.
pub const EPOCH: &str = "1700000000";
/// Where UEFI looks for the program of a medium.
pub const BOOT_PROGRAM: &str = "EFI/BOOT/BOOTX64.EFI";

/// Why a medium cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum MediaError {
    /// A file cannot be read or written.
    #[error("cannot read or write {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The stub of the UKI is no program that sections can be added to.
    #[error("the EFI stub cannot carry a kernel: {0}")]
    Stub(&'static str),
    /// A tool failed.
    #[error(transparent)]
    Tool(#[from] ToolError),
}

/// An error of a file as an error of a medium.
fn at(path: &Path) -> impl FnOnce(io::Error) -> MediaError + '_ {
    move |source| MediaError::Io { path: path.into(), source }
}
