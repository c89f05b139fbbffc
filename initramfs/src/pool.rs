//! All files of the locked packages under the paths that they have in the image, where `/bin`, `/sbin` and `/lib` lead to
//! `/usr`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use globset::GlobBuilder;
use walkdir::WalkDir;

use crate::lock::Package;
use crate::store::{Store, StoreError};
use crate::tree::place;

/// Where files are looked for.
#[derive(Debug, Default)]
pub struct Pool {
    files: BTreeMap<String, Found>,
}

/// A file of a package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The package.
    pub package: String,
    /// Where it is on this machine.
    pub source: PathBuf,
    /// Where it leads, when it is a symbolic link.
    pub link: Option<String>,
}

impl Pool {
    /// The files of these packages.
    pub fn open(packages: &[Package], store: &Store) -> Result<Self, StoreError> {
        let mut pool = Self::default();
        for package in packages {
            let tree = store.tree(package)?;
            for entry in WalkDir::new(&tree).sort_by_file_name() {
                let entry = entry.map_err(|e| StoreError::Io { path: tree.clone(), source: e.into() })?;
                let kind = entry.file_type();
                let relative = entry.path().strip_prefix(&tree).expect("it was found below the tree");
                // A name that is no text is no file that a recipe can name.
                let (false, Some(path)) = (kind.is_dir(), relative.to_str()) else { continue };
                let mut link = None;
                if kind.is_symlink() {
                    let target = std::fs::read_link(entry.path())
                        .map_err(|source| StoreError::Io { path: entry.path().into(), source })?;
                    link = target.to_str().map(str::to_owned);
                }
                let found = Found { package: package.name.clone(), source: entry.path().into(), link };
                pool.files.insert(place(path), found);
            }
        }
        Ok(pool)
    }

    /// A file, by its path.
    pub fn find(&self, path: &str) -> Option<&Found> {
        self.files.get(&place(path))
    }

    /// The paths that a pattern matches: `*` and `?` stay in a folder, `**` does not.
    pub fn matching(&self, pattern: &str) -> Result<Vec<String>, globset::Error> {
        if !pattern.contains(['*', '?', '[', '{']) {
            return Ok(self
                .files
                .contains_key(&place(pattern))
                .then(|| place(pattern))
                .into_iter()
                .collect());
        }
        let glob = GlobBuilder::new(&place(pattern)).literal_separator(true).build()?.compile_matcher();
        Ok(self.files.keys().filter(|path| glob.is_match(path)).cloned().collect())
    }

    /// A file of a package, for tests.
    #[cfg(test)]
    pub fn insert(&mut self, path: &str, found: Found) {
        self.files.insert(place(path), found);
    }
}
