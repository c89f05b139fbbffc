//! The trees that are packed and read, made once per run.

mod made;
mod realistic;
mod usr;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use anyhow::Context;
use blake3::Hash;

use super::digest;
use super::work::Work;
use crate::debian;

/// A tree.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Tree {
    /// A part of this machine's /usr.
    Usr,
    /// Many files of a few hundred bytes.
    Tiny,
    /// Many files of 10 KB.
    Small,
    /// Two large files: `BIG` and `RANDOM`.
    Large,
    /// A Debian root file system with python3.
    Debian,
}

impl Tree {
    pub(super) fn name(self) -> &'static str {
        match self {
            Tree::Usr => "usr",
            Tree::Tiny => "tiny",
            Tree::Small => "small",
            Tree::Large => "large",
            Tree::Debian => "debian",
        }
    }
}

/// The file of `Tree::Large` that is read from end to end.
pub(super) const BIG: &str = "big";
/// The file of `Tree::Large` that is read at random offsets.
pub(super) const RANDOM: &str = "random";
/// Bytes of each file of `Tree::Small`.
pub(super) const SMALL_BYTES: usize = 10_000;

/// How large the trees are.
pub(super) struct Sizes {
    usr_bytes: u64,
    tiny_files: usize,
    small_files: usize,
    big_bytes: u64,
    pub(super) random_bytes: u64,
}

const FULL: Sizes = Sizes {
    usr_bytes: 700_000_000,
    tiny_files: 20_000,
    small_files: 10_000,
    big_bytes: 1 << 30,
    random_bytes: 512 << 20,
};

const QUICK: Sizes = Sizes {
    usr_bytes: 100_000_000,
    tiny_files: 2_000,
    small_files: 1_000,
    big_bytes: 128 << 20,
    random_bytes: 64 << 20,
};

/// A tree that was made, and what is in it.
#[derive(Clone)]
pub(super) struct Made {
    pub(super) path: PathBuf,
    pub(super) entries: u64,
    /// Bytes of its regular files.
    pub(super) bytes: u64,
    digest: Option<Hash>,
}

/// All trees; each is made when it is first asked for.
pub(super) struct Trees {
    folder: PathBuf,
    pub(super) sizes: Sizes,
    made: RefCell<BTreeMap<Tree, Made>>,
}

impl Trees {
    pub(super) fn new(work: &Work, quick: bool) -> Trees {
        let sizes = if quick { QUICK } else { FULL };
        Trees { folder: work.at("trees"), sizes, made: RefCell::default() }
    }

    pub(super) fn get(&self, tree: Tree) -> anyhow::Result<Made> {
        if let Some(made) = self.made.borrow().get(&tree) {
            return Ok(made.clone());
        }
        let path = self.make(tree).with_context(|| format!("making the tree {}", tree.name()))?;
        let (entries, bytes) = count(path.clone())?;
        let made = Made { path, entries, bytes, digest: None };
        self.made.borrow_mut().insert(tree, made.clone());
        Ok(made)
    }

    /// What the content of a tree must be, wherever it is mounted.
    pub(super) fn digest(&self, tree: Tree) -> anyhow::Result<Hash> {
        let made = self.get(tree)?;
        if let Some(digest) = made.digest {
            return Ok(digest);
        }
        let digest = digest::tree(&made.path)?;
        self.made.borrow_mut().insert(tree, Made { digest: Some(digest), ..made });
        Ok(digest)
    }

    /// Those that this run has used.
    pub(super) fn used(&self) -> Vec<(Tree, Made)> {
        self.made.borrow().iter().map(|(tree, made)| (*tree, made.clone())).collect()
    }

    fn make(&self, tree: Tree) -> anyhow::Result<PathBuf> {
        if tree == Tree::Debian {
            return debian::tree();
        }
        let path = self.folder.join(tree.name());
        fs::create_dir_all(&path)?;
        match tree {
            Tree::Usr => usr::copy(&path, self.sizes.usr_bytes)?,
            Tree::Tiny => made::tiny(&path, self.sizes.tiny_files)?,
            Tree::Small => made::small(&path, self.sizes.small_files)?,
            Tree::Large => made::large(&path, self.sizes.big_bytes, self.sizes.random_bytes)?,
            Tree::Debian => {}
        }
        Ok(path)
    }
}

/// Names, and bytes of regular files.
fn count(root: PathBuf) -> anyhow::Result<(u64, u64)> {
    let (mut entries, mut bytes) = (1, 0);
    let mut pending = vec![root];
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(&dir).with_context(|| dir.display().to_string())? {
            let entry = entry?;
            let kind = entry.file_type()?;
            entries += 1;
            if kind.is_dir() {
                pending.push(entry.path());
            } else if kind.is_file() {
                bytes += entry.metadata()?.len();
            }
        }
    }
    Ok((entries, bytes))
}
