//! An absolute path.

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::{from_text, shown};

/// `PATH_MAX` without its NUL (path_resolution(7)).
const MAX: usize = 4095;

/// A path from the root. `..` in it is nothing bad: whoever may use paths may use all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AbsolutePath(PathBuf);

impl FromStr for AbsolutePath {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.contains('\0') {
            return Err(format!("path {} has a NUL in it", shown(text)));
        }
        if text.len() > MAX {
            return Err(format!("path {} has {} bytes, more than {MAX}", shown(text), text.len()));
        }
        if !text.starts_with('/') {
            return Err(format!("path {} is not absolute: it must start with /", shown(text)));
        }
        Ok(AbsolutePath(text.into()))
    }
}

from_text!(AbsolutePath, "An absolute path.");

impl Deref for AbsolutePath {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_absolute_paths_without_nul_are_taken() {
        for text in ["", "a", "./a", "/a\0b", &format!("/{}", "a".repeat(4095))] {
            let json = serde_json::to_string(text).unwrap();
            assert!(serde_json::from_str::<AbsolutePath>(&json).is_err(), "{json}");
        }
        let longest = format!("/{}", "a".repeat(4094));
        for text in ["/", "/a/../b", "/ü ", &longest] {
            assert_eq!(&*text.parse::<AbsolutePath>().unwrap(), Path::new(text));
        }
    }
}
