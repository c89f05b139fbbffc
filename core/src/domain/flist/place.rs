//! Where an flist may be shown that the node was told of.

use std::path::{Component, Path};

/// Where the system's components are shown.
pub const SYSTEM: &str = "/system";
/// Below these a node may mount.
pub const WRITABLE: [&str; 3] = ["/run", "/tmp", "/var"];
/// Longest path.
const MAX: usize = 1024;

/// A path below a folder that is writable on a machine. `/run/core0` is the node's own.
pub fn is_writable(path: &Path) -> bool {
    let plain = |part: Component<'_>| matches!(part, Component::RootDir | Component::Normal(_));
    let below = |folder: &&str| path.starts_with(folder) && path != Path::new(folder);
    path.components().all(plain)
        && path.to_str().is_some_and(|text| text.len() < MAX && !text.contains(char::is_control))
        && WRITABLE.iter().any(below)
        && !path.starts_with("/run/core0")
}

/// Any place for one.
pub fn is_place(path: &Path) -> bool {
    path == Path::new(SYSTEM) || is_writable(path)
}
