//! Takes the files that a recipe names, and with them all that they need: where links lead, libraries, loaders.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::elf::{Needs, NoElf};
use crate::pool::Pool;
use crate::recipe::Recipe;
use crate::tool::{self, ToolError};
use crate::tree::{Content, EXECUTABLE, Node, PLAIN, Tree, place, target};

/// Why a recipe cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum AssembleError {
    /// The recipe names a file that no package has.
    #[error(
        "no locked package has {0}: is it in another package, or is the lock older than the recipe? `make image-lock` makes a new one"
    )]
    Missing(String),
    /// A file needs another one that no package has.
    #[error(
        "{path} needs {need}, which no locked package has: `make image-lock` looks for all that is needed"
    )]
    Needs {
        /// The file.
        path: String,
        /// What it needs.
        need: String,
    },
    /// A pattern is none.
    #[error("the recipe has a pattern that is none")]
    Pattern(#[from] globset::Error),
    /// A file cannot be read.
    #[error("cannot read {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A program is damaged.
    #[error("cannot tell what {path} needs")]
    Elf {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: NoElf,
    },
    /// One of our own programs is not built.
    #[error("{0} is not there: build it with `cargo build --release -p core0`")]
    NotBuilt(PathBuf),
    /// A tool failed.
    #[error(transparent)]
    Tool(#[from] ToolError),
}

/// Our own programs: the folder where cargo left them, and one for their stripped copies.
#[derive(Clone, Debug)]
pub struct Programs {
    /// As built.
    pub built: PathBuf,
    /// Stripped.
    pub stripped: PathBuf,
}

/// A tree without its kernel.
#[derive(Debug)]
pub struct Assembled {
    /// The files.
    pub tree: Tree,
    /// The packages that gave any.
    pub packages: BTreeSet<String>,
}

/// Follows a recipe.
pub fn assemble(recipe: &Recipe, pool: &Pool, programs: &Programs) -> Result<Assembled, AssembleError> {
    let mut taker = Taker { pool, tree: Tree::new(), packages: BTreeSet::new() };
    for (path, mode) in &recipe.folders {
        let mode = u32::from_str_radix(mode, 8).expect("the recipe was judged when it was read");
        taker.tree.insert(path, Node::Folder(mode));
    }
    for pattern in recipe.packages.values().flatten() {
        taker.take_all(pattern)?;
    }
    for (name, path) in &recipe.programs {
        let stripped = strip(programs, name)?;
        taker.tree.insert(path, Node::File(Content::Path(stripped.clone()), EXECUTABLE));
        taker.take_needs(&stripped, path)?;
    }
    for (path, link) in &recipe.links {
        taker.tree.insert(path, Node::Link(link.clone()));
    }
    for (path, text) in &recipe.files {
        taker.tree.insert(path, Node::File(Content::Bytes(text.clone().into_bytes()), PLAIN));
    }
    for (path, pattern) in &recipe.joined {
        let bytes = taker.join(pattern)?;
        taker.tree.insert(path, Node::File(Content::Bytes(bytes), PLAIN));
    }
    if let Some(program) = &recipe.applets {
        taker.link_applets(program)?;
    }
    Ok(Assembled { tree: taker.tree, packages: taker.packages })
}

struct Taker<'a> {
    pool: &'a Pool,
    tree: Tree,
    packages: BTreeSet<String>,
}

impl Taker<'_> {
    fn take_all(&mut self, pattern: &str) -> Result<(), AssembleError> {
        let paths = self.pool.matching(pattern)?;
        if paths.is_empty() {
            return Err(AssembleError::Missing(pattern.into()));
        }
        paths.iter().try_for_each(|path| self.take(path).map(drop))
    }

    /// Takes a file with all that it needs; false when there is none.
    fn take(&mut self, path: &str) -> Result<bool, AssembleError> {
        let path = place(path);
        if self.tree.get(&path).is_some() {
            return Ok(true);
        }
        let Some(found) = self.pool.find(&path) else { return Ok(false) };
        self.packages.insert(found.package.clone());
        if let Some(link) = &found.link {
            self.tree.insert(&path, Node::Link(link.clone()));
            return match self.take(&target(&path, link))? {
                true => Ok(true),
                false => Err(AssembleError::Needs { path, need: link.clone() }),
            };
        }
        let mode = match is_executable(&found.source)? {
            true => EXECUTABLE,
            false => PLAIN,
        };
        // Before what it needs: libraries can need each other.
        self.tree.insert(&path, Node::File(Content::Path(found.source.clone()), mode));
        self.take_needs(&found.source, &path)?;
        Ok(true)
    }

    fn take_needs(&mut self, source: &Path, path: &str) -> Result<(), AssembleError> {
        let bytes = fs::read(source).map_err(|e| AssembleError::Io { path: source.into(), source: e })?;
        let needs =
            Needs::of(&bytes, path).map_err(|source| AssembleError::Elf { path: path.into(), source })?;
        drop(bytes);
        let lacks = |need: &str| AssembleError::Needs { path: path.into(), need: need.into() };
        if let Some(loader) = &needs.loader
            && !self.take(loader)?
            // The shell is an applet, and applets come last.
            && place(loader) != "usr/bin/sh"
        {
            return Err(lacks(loader));
        }
        'libraries: for library in &needs.libraries {
            for candidate in needs.candidates(library) {
                if self.take(&candidate)? {
                    continue 'libraries;
                }
            }
            return Err(lacks(library));
        }
        Ok(())
    }

    fn join(&mut self, pattern: &str) -> Result<Vec<u8>, AssembleError> {
        let mut bytes = Vec::new();
        for path in self.pool.matching(pattern)? {
            let Some(found) = self.pool.find(&path) else { continue };
            self.packages.insert(found.package.clone());
            bytes.extend(
                fs::read(&found.source)
                    .map_err(|source| AssembleError::Io { path: found.source.clone(), source })?,
            );
            if !bytes.ends_with(b"\n") {
                bytes.push(b'\n');
            }
        }
        if bytes.is_empty() { Err(AssembleError::Missing(pattern.into())) } else { Ok(bytes) }
    }

    /// Links for the applets of a program, where nothing else has that name.
    fn link_applets(&mut self, program: &str) -> Result<(), AssembleError> {
        let found = self.pool.find(program).ok_or_else(|| AssembleError::Missing(program.into()))?;
        let listed = tool::run(Command::new(&found.source).arg("--list-full"))?;
        for applet in listed.lines() {
            // One without a folder is for the init scripts of other systems.
            let Some((_, name)) = applet.rsplit_once('/') else { continue };
            let taken = |folder: &str| self.tree.get(&format!("/usr/{folder}/{name}")).is_some();
            if !taken("bin") && !taken("sbin") {
                self.tree.insert(applet, Node::Link(format!("/{}", place(program))));
            }
        }
        Ok(())
    }
}

fn is_executable(path: &Path) -> Result<bool, AssembleError> {
    let metadata = fs::metadata(path).map_err(|source| AssembleError::Io { path: path.into(), source })?;
    Ok(metadata.permissions().mode() & 0o111 != 0)
}

/// A copy of a program without symbols. Modules of the kernel are never stripped, as their signature would go.
fn strip(programs: &Programs, name: &str) -> Result<PathBuf, AssembleError> {
    let built = programs.built.join(name);
    if !built.is_file() {
        return Err(AssembleError::NotBuilt(built));
    }
    let stripped = programs.stripped.join(name);
    tool::run(Command::new("strip").args(["--strip-all", "-o"]).arg(&stripped).arg(&built))?;
    Ok(stripped)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::Found;

    fn pool(folder: &Path, files: &[(&str, &[u8])], links: &[(&str, &str)]) -> Pool {
        let mut pool = Pool::default();
        for (number, (path, bytes)) in files.iter().enumerate() {
            let source = folder.join(number.to_string());
            fs::write(&source, bytes).unwrap();
            pool.insert(path, Found { package: format!("p{number}"), source, link: None });
        }
        for (path, link) in links {
            let found = Found { package: "links".into(), source: folder.into(), link: Some((*link).into()) };
            pool.insert(path, found);
        }
        pool
    }

    #[test]
    fn a_file_comes_with_where_its_link_leads_and_with_its_interpreter() {
        let folder = tempfile::tempdir().unwrap();
        let files: [(&str, &[u8]); 2] =
            [("/bin/real", b"#!/bin/interpreter\n"), ("/usr/bin/interpreter", b"x")];
        let pool = pool(folder.path(), &files, &[("/sbin/name", "/bin/real")]);
        let mut taker = Taker { pool: &pool, tree: Tree::new(), packages: BTreeSet::new() };
        taker.take_all("/usr/sbin/na*").unwrap();
        assert_eq!(taker.tree.get("/usr/sbin/name"), Some(&Node::Link("/bin/real".into())));
        assert!(taker.tree.get("/bin/real").is_some() && taker.tree.get("/bin/interpreter").is_some());
        assert_eq!(taker.packages.len(), 3);
    }

    #[test]
    fn what_is_missing_is_named_with_what_needs_it() {
        let folder = tempfile::tempdir().unwrap();
        let pool =
            pool(folder.path(), &[("/bin/script", b"#!/usr/bin/perl\n")], &[("/bin/dangling", "gone")]);
        let mut taker = Taker { pool: &pool, tree: Tree::new(), packages: BTreeSet::new() };
        for (pattern, words) in [
            ("/bin/script", ["usr/bin/script", "/usr/bin/perl"]),
            ("/bin/dangling", ["usr/bin/dangling", "gone"]),
            ("/bin/absent*", ["/bin/absent*", "lock"]),
        ] {
            let error = taker.take_all(pattern).unwrap_err().to_string();
            assert!(words.iter().all(|word| error.contains(word)), "{error}");
        }
    }
}
