//! The mount table, by the reader of the engine, which no change in between confuses.

use std::io;
use std::path::Path;

pub use g8_fs::engine::mountinfo::{Entry as Mount, read as mounts};

/// Where the kernel lists the mounts.
pub const PATH: &str = "/proc/self/mountinfo";

/// The first mount at or below a path.
pub fn at_or_below(path: &Path) -> io::Result<Option<Mount>> {
    Ok(mounts()?.into_iter().find(|m| m.mountpoint.starts_with(path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_found_from_above() {
        assert!(at_or_below(Path::new("/proc")).unwrap().is_some());
        assert!(at_or_below(Path::new("/")).unwrap().is_some());
        assert_eq!(at_or_below(Path::new("/no/such/place")).unwrap(), None);
    }
}
