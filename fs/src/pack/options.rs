//! What a user may choose about a pack. Everything here but `threads` decides the CID.

use std::path::Path;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use super::PackError;
use crate::format::RunConfig;

/// Owner of everything in the flist, instead of the owners on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnerMap {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// Which paths are left out.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    globs: GlobSet,
}

impl Filter {
    /// Patterns as in .gitignore's simplest form: with a `/` they are matched from the root of the tree, without one
    /// against the last component anywhere. A directory that matches is left out with all it holds.
    pub fn new<S: AsRef<str>>(patterns: &[S]) -> Result<Self, PackError> {
        let mut set = GlobSetBuilder::new();
        for pattern in patterns {
            let pattern = pattern.as_ref();
            let fail = |reason: String| PackError::Pattern { pattern: pattern.into(), reason };
            let trimmed = pattern.trim_end_matches('/');
            let full = match trimmed.strip_prefix('/') {
                Some(anchored) => anchored.to_owned(),
                None if trimmed.contains('/') => trimmed.to_owned(),
                None => format!("**/{trimmed}"),
            };
            if full.is_empty() || full == "**/" {
                return Err(fail("names nothing".into()));
            }
            let glob = GlobBuilder::new(&full).literal_separator(true).build();
            set.add(glob.map_err(|e| fail(e.kind().to_string()))?);
        }
        let globs = set
            .build()
            .map_err(|e| PackError::Pattern { pattern: String::new(), reason: e.kind().to_string() })?;
        Ok(Filter { globs })
    }

    /// Whether `path`, relative to the root of the tree, is left out.
    pub fn excludes(&self, path: &Path) -> bool {
        !self.globs.is_empty() && !path.as_os_str().is_empty() && self.globs.is_match(path)
    }
}

/// Options of one run.
#[derive(Clone, Debug)]
pub struct PackOptions {
    /// What to leave out.
    pub filter: Filter,
    /// Stay on the file system of the root; a mountpoint becomes an empty directory.
    pub one_file_system: bool,
    /// Times after this many seconds since 1970 become it.
    pub clamp_mtime: Option<i64>,
    /// Give everything to this owner.
    pub owner: Option<OwnerMap>,
    /// zstd level of data, 1 to 22.
    pub level: i32,
    /// Plain bytes of a frame, the unit that is decoded: a multiple of 4 KiB up to 1008 KiB.
    pub frame_len: u32,
    /// Leave files out that change while they are read, and report them.
    pub skip_changed: bool,
    /// Worker threads for reading, and as many for encoding.
    pub threads: usize,
    /// Architecture to record; else it is taken from the ELF files in the tree.
    pub arch: Option<String>,
    /// Run configuration to record.
    pub config: RunConfig,
}

impl Default for PackOptions {
    fn default() -> Self {
        PackOptions {
            filter: Filter::default(),
            one_file_system: false,
            clamp_mtime: None,
            owner: None,
            level: 3,
            frame_len: 64 * 1024,
            skip_changed: false,
            threads: std::thread::available_parallelism().map_or(2, usize::from),
            arch: None,
            config: RunConfig::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_anchored_only_by_a_slash() {
        let filter = Filter::new(&["*.o", "/tmp", "var/cache/*.bin", "sub/"]).unwrap();
        for out in ["a.o", "x/y/b.o", "tmp", "var/cache/pkg.bin", "deep/sub"] {
            assert!(filter.excludes(Path::new(out)), "{out}");
        }
        for kept in ["", "x/tmp", "var/cache/x/pkg.bin", "a.oo"] {
            assert!(!filter.excludes(Path::new(kept)), "{kept}");
        }
        Filter::new(&["a[", ""]).unwrap_err();
    }
}
