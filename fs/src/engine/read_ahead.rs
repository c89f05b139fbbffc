//! Read-ahead of the kernel, which neither FUSE nor fuser can ask for beyond 128 KiB: it is set from outside.
//!
//! The sizes are measured (DECISIONS.md): more costs memory and brings nothing where blocks are on this machine, and a long way
//! to them wants more under way. In mode `kernel` that is our own business (`filesystem/ahead.rs`), which knows how a reader goes
//! on: what the kernel asks for it waits for, all of it, and a page fault has it ask for a whole window around the page, and
//! the last page of a small file for a window behind it. A source next door is as good as one on this machine.

use super::mount::Parts;

/// In KiB: FUSE in mode `fuse`.
const LOCAL: u32 = 512;
const REMOTE: u32 = 2048;
/// In KiB: `small` below mode `kernel`.
const SMALL_LOCAL: u32 = 512;
const SMALL_REMOTE: u32 = 128;
/// In KiB: EROFS itself, which is what reads `big`.
const EROFS_LOCAL: u32 = 512;
const EROFS_REMOTE: u32 = 256;

/// For the FUSE mount of mode `fuse`.
pub(super) fn fuse(parts: &Parts<'_>) -> u32 {
    if is_far(parts) { REMOTE } else { LOCAL }
}

/// For the FUSE mount below mode `kernel`.
pub(super) fn small(parts: &Parts<'_>) -> u32 {
    if is_far(parts) { SMALL_REMOTE } else { SMALL_LOCAL }
}

/// For the EROFS mount of mode `kernel`.
pub(super) fn erofs(parts: &Parts<'_>) -> u32 {
    if is_far(parts) { EROFS_REMOTE } else { EROFS_LOCAL }
}

/// Whether blocks come a long way, or what is recorded is for mounts where they do.
fn is_far(parts: &Parts<'_>) -> bool {
    let as_if = parts.spec.record || parts.spec.source_options.cache_local;
    as_if || (parts.spec.is_remote() && !parts.sources.are_near())
}

/// Sets it for the backing device `bdi`, `0:MINOR` or `erofs-N`. Needs root; without it the mount is only slower.
pub(super) fn set(bdi: &str, kib: u32) {
    if let Err(error) = std::fs::write(format!("/sys/class/bdi/{bdi}/read_ahead_kb"), kib.to_string()) {
        tracing::debug!(bdi, %error, "read-ahead stays at the kernel's default");
    }
}
