//! Compares two trees in everything a filesystem image must keep: the judge of pack, mount and unpack.
//!
//! Both trees are walked in step by directory descriptors. Compared are names, kinds, modes, owners, modification times
//! with nanoseconds, sizes, link counts, devices, symlink targets, extended attributes, contents and which names share an
//! inode. Not compared: access and change times, which no image keeps; link counts and sizes of directories, which every
//! filesystem counts in its own way; `security.selinux`, which is made at mount.

mod attributes;
mod contents;

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fmt;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::fs::{AtFlags, CWD, FileType, statat};
use rustix::io;

use crate::walk::{list, open_dir};
use attributes::Side;

/// One thing that differs.
#[derive(Debug)]
pub struct Difference {
    /// The path from the root of both trees.
    pub rel: PathBuf,
    /// What is not the same.
    pub what: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rel: String = self.rel.as_os_str().as_encoded_bytes().escape_ascii().to_string();
        write!(f, "{}: {}", if rel.len() > 200 { &rel[rel.len() - 200..] } else { &rel }, self.what)
    }
}

/// Everything in which the trees at `a` and `b` differ.
pub fn trees(a: &Path, b: &Path) -> Vec<Difference> {
    Comparison::default().run(a, b)
}

/// Panics with the first differences unless the trees at `a` and `b` are the same.
#[track_caller]
pub fn assert_same(a: &Path, b: &Path) {
    let found = trees(a, b);
    let first: Vec<String> = found.iter().take(25).map(ToString::to_string).collect();
    assert!(
        found.is_empty(),
        "{} and {} differ in {} places:\n{}",
        a.display(),
        b.display(),
        found.len(),
        first.join("\n")
    );
}

#[derive(Default)]
struct Comparison {
    found: Vec<Difference>,
    links_a: Links,
    links_b: Links,
    buffers: contents::Buffers,
}

type Links = HashMap<(u64, u64), Vec<PathBuf>>;
type Pair = (Rc<OwnedFd>, Rc<OwnedFd>);

impl Comparison {
    fn run(mut self, a: &Path, b: &Path) -> Vec<Difference> {
        let root = PathBuf::new();
        let open = |path: &Path| open_dir(CWD, path.as_os_str()).map(Rc::new);
        let Some(top) = self.both(&root, open(a), open(b)) else { return self.found };
        self.entry(&top, OsStr::new("."), &root);
        let mut todo = vec![(top, OsStr::new(".").to_owned(), root)];
        while let Some((pair, name, rel)) = todo.pop() {
            let open = |dir: &OwnedFd| open_dir(dir, &name).map(Rc::new);
            let Some(pair) = self.both(&rel, open(&pair.0), open(&pair.1)) else { continue };
            for name in self.common_names(&pair, &rel) {
                let rel = rel.join(&name);
                if self.entry(&pair, &name, &rel) {
                    todo.push((pair.clone(), name, rel));
                }
            }
        }
        self.same_links();
        self.found
    }

    /// The names in both directories; those in one only, and kinds that readdir tells differently, are differences.
    fn common_names(&mut self, pair: &Pair, rel: &Path) -> Vec<std::ffi::OsString> {
        let Some((a, b)) = self.both(rel, list(&pair.0), list(&pair.1)) else { return Vec::new() };
        let kinds: HashMap<_, _> = b.iter().map(|(n, k)| (n.as_os_str(), *k)).collect();
        let mut common = Vec::with_capacity(a.len());
        for (name, kind) in &a {
            match kinds.get(name.as_os_str()) {
                None => self.note(&rel.join(name), "only in the first tree"),
                Some(other) => {
                    if other != kind && *other != FileType::Unknown && *kind != FileType::Unknown {
                        self.note(&rel.join(name), &format!("readdir says {kind:?} and {other:?}"));
                    }
                    common.push(name.clone());
                }
            }
        }
        if b.len() > common.len() {
            let known: std::collections::HashSet<_> = a.iter().map(|(n, _)| n).collect();
            for (name, _) in b.iter().filter(|(n, _)| !known.contains(n)) {
                self.note(&rel.join(name), "only in the second tree");
            }
        }
        if kinds.len() != b.len() {
            self.note(rel, "the second tree lists a name twice");
        }
        common
    }

    /// Compares one entry; true if both are directories.
    fn entry(&mut self, pair: &Pair, name: &OsStr, rel: &Path) -> bool {
        let stat = |dir: &OwnedFd| statat(dir, name, AtFlags::SYMLINK_NOFOLLOW);
        let Some((a, b)) = self.both(rel, stat(&pair.0), stat(&pair.1)) else { return false };
        let (a, b) = (Side { dir: &pair.0, name, stat: a }, Side { dir: &pair.1, name, stat: b });
        for what in attributes::differences(&a, &b) {
            self.note(rel, &what);
        }
        if a.kind() != b.kind() {
            return false;
        }
        if a.kind() == FileType::RegularFile && a.stat.st_size == b.stat.st_size && a.stat.st_size > 0 {
            let verdict = self.buffers.first_difference(&a, &b);
            match verdict {
                Ok(None) => {}
                Ok(Some(offset)) => self.note(rel, &format!("contents differ at byte {offset}")),
                Err(e) => self.note(rel, &e),
            }
        }
        if a.kind() != FileType::Directory {
            self.links_a.entry((a.stat.st_dev, a.stat.st_ino)).or_default().push(rel.to_owned());
            self.links_b.entry((b.stat.st_dev, b.stat.st_ino)).or_default().push(rel.to_owned());
        }
        a.kind() == FileType::Directory
    }

    fn same_links(&mut self) {
        let groups = |links: &Links| {
            let mut groups: Vec<Vec<PathBuf>> = links.values().filter(|g| g.len() > 1).cloned().collect();
            groups.iter_mut().for_each(|g| g.sort());
            groups.sort();
            groups
        };
        let (a, b) = (groups(&self.links_a), groups(&self.links_b));
        let known: std::collections::HashSet<_> = b.iter().collect();
        for group in a.iter().filter(|g| !known.contains(g)) {
            self.note(
                &group[0],
                &format!("names of one inode in the first tree only: {:?}", &group[..group.len().min(5)]),
            );
        }
        let known: std::collections::HashSet<_> = a.iter().collect();
        for group in b.iter().filter(|g| !known.contains(g)) {
            self.note(
                &group[0],
                &format!("names of one inode in the second tree only: {:?}", &group[..group.len().min(5)]),
            );
        }
    }

    fn both<T>(&mut self, rel: &Path, a: io::Result<T>, b: io::Result<T>) -> Option<(T, T)> {
        if let Err(e) = &a {
            self.note(rel, &format!("the first tree fails: {e}"));
        }
        if let Err(e) = &b {
            self.note(rel, &format!("the second tree fails: {e}"));
        }
        a.ok().zip(b.ok())
    }

    fn note(&mut self, rel: &Path, what: &str) {
        self.found.push(Difference { rel: rel.to_owned(), what: what.to_owned() });
    }
}
