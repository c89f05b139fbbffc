//! A tree with everything an flist promises to keep (fs/FORMAT.md), and every border where a writer can be off by one.

mod attributes;
mod contents;
mod kinds;
mod names;
mod shapes;

use std::path::Path;

use crate::tree::Builder;

/// How much of what takes time to build.
#[derive(Debug, Clone, Copy)]
pub struct Scale {
    /// Entries of the directory `wide`.
    pub wide: usize,
    /// Levels of the path below `deep`, each with a name of 60 bytes.
    pub levels: usize,
}

impl Scale {
    /// For a test that packs the tree several times. No path is longer than PATH_MAX, so `cp -a` can copy it.
    pub const FAST: Self = Self { wide: 2_000, levels: 60 };
    /// All that is promised: 100,000 entries in a directory, and a path of 12,000 bytes.
    pub const FULL: Self = Self { wide: 100_000, levels: 200 };
}

/// Plants the tree at `root`.
pub fn build(root: &Path, scale: Scale) {
    let mut tree = Builder::at(root);
    kinds::plant(&tree);
    attributes::plant(&mut tree);
    names::plant(&tree);
    contents::plant(&tree);
    shapes::plant(&tree, scale);
    the_root_itself(&mut tree);
    tree.finish();
}

fn the_root_itself(tree: &mut Builder) {
    tree.owner("", 70_001, 80_001);
    tree.mode("", 0o3751);
    tree.xattr("", "user.root", b"the root has attributes too");
    tree.xattr("", "trusted.root", &[0, 1, 2, 255]);
    tree.time("", -86_400 * 365 * 20, 999_999_999);
}
