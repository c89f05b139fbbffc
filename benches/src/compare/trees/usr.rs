//! A copy of a part of /usr: programs, libraries, sources, with their links, owners and times.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::run::{pipeline, silent};

const USR: &str = "/usr";
/// Taken in this order until there is enough; a star ends a name.
const PARTS: [&str; 7] = ["lib/python3", "lib/python3.*", "bin", "include", "lib/gcc", "share", "lib"];

/// Copies parts of /usr until their files hold about `bytes`.
pub(super) fn copy(target: &Path, bytes: u64) -> anyhow::Result<()> {
    let mut choice = Choice { left: bytes, taken: BTreeSet::new(), list: Vec::new() };
    choice.take_all()?;
    let list = target.with_extension("list");
    let names: Vec<&[u8]> = choice.list.iter().map(|path| path.as_os_str().as_bytes()).collect();
    fs::write(&list, names.join(&0))?;
    let (list, target) = (list.display(), target.display());
    let script = format!(
        "tar -C {USR} --null --no-recursion -T '{list}' -cf - | tar -C '{target}' -xpf - --delay-directory-restore"
    );
    silent(&mut pipeline(&script))?;
    Ok(())
}

struct Choice {
    /// Bytes still to take.
    left: u64,
    taken: BTreeSet<PathBuf>,
    /// Relative to /usr, folders before what is in them.
    list: Vec<PathBuf>,
}

impl Choice {
    fn take_all(&mut self) -> anyhow::Result<()> {
        self.note(Path::new("."));
        for part in PARTS {
            for start in matching(part)? {
                if let Some(folder) = start.parent().filter(|p| !p.as_os_str().is_empty()) {
                    self.note(folder);
                }
                if !self.take(&start)? {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn note(&mut self, path: &Path) {
        if self.taken.insert(path.to_owned()) {
            self.list.push(path.to_owned());
        }
    }

    /// Takes a file, or a folder with all that is in it; whether there is still room.
    fn take(&mut self, path: &Path) -> anyhow::Result<bool> {
        let full = Path::new(USR).join(path);
        let Ok(meta) = fs::symlink_metadata(&full) else { return Ok(true) };
        if meta.is_dir() {
            self.note(path);
            for name in names(&full)? {
                if !self.take(&path.join(name))? {
                    return Ok(false);
                }
            }
        } else if !self.taken.contains(path) {
            let bytes = if meta.is_file() { meta.len() } else { 0 };
            if bytes > self.left {
                return Ok(false);
            }
            self.left -= bytes;
            self.note(path);
        }
        Ok(true)
    }
}

fn matching(pattern: &str) -> anyhow::Result<Vec<PathBuf>> {
    let Some(prefix) = pattern.strip_suffix('*') else { return Ok(vec![PathBuf::from(pattern)]) };
    let (folder, begin) = prefix.rsplit_once('/').unwrap_or(("", prefix));
    let found = names(&Path::new(USR).join(folder))?;
    let found = found.into_iter().filter(|name| name.as_bytes().starts_with(begin.as_bytes()));
    Ok(found.map(|name| Path::new(folder).join(name)).collect())
}

fn names(folder: &Path) -> anyhow::Result<Vec<std::ffi::OsString>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        names.push(entry?.file_name());
    }
    names.sort();
    Ok(names)
}
