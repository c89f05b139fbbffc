//! open, read and close of many small files, by a loop in this process.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context;

use super::of_three;
use crate::compare::bench::{Bench, Memory, Session};
use crate::compare::contender::{Cache, Reader};
use crate::compare::results::{Extras, Log};
use crate::compare::trees::{SMALL_BYTES, Tree};

pub(super) fn run(bench: &Bench, reader: &dyn Reader, log: &mut Log<'_>) -> anyhow::Result<()> {
    let files = names(&bench.trees.get(Tree::Small)?.path)?;
    let session = bench.mount(reader, Tree::Small, Cache::Empty, Memory::Empty)?;
    let before = session.traffic()?;
    log.add("small/disk", read_all(&session, &files)?, session.since(&before)?);
    log.add("small/warm", of_three(|| read_all(&session, &files))?, Extras::new());
    session.end()?;
    if reader.packer().is_some() {
        let session = bench.mount(reader, Tree::Small, Cache::Empty, Memory::Image)?;
        let before = session.traffic()?;
        log.add("small/fresh", read_all(&session, &files)?, session.since(&before)?);
        session.end()?;
    }
    Ok(())
}

/// Names relative to the tree, in the order of the tree.
fn names(tree: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut names = Vec::new();
    for folder in fs::read_dir(tree)? {
        let folder = folder?;
        for file in fs::read_dir(folder.path())? {
            names.push(Path::new(&folder.file_name()).join(file?.file_name()));
        }
    }
    names.sort();
    Ok(names)
}

/// Microseconds a file.
fn read_all(session: &Session<'_>, files: &[PathBuf]) -> anyhow::Result<f64> {
    let paths: Vec<PathBuf> = files.iter().map(|file| session.place().join(file)).collect();
    let mut buffer = vec![0; 2 * SMALL_BYTES];
    let began = Instant::now();
    for path in &paths {
        // One read: a file this small comes whole, and its end need not be asked for.
        let read = File::open(path).and_then(|mut file| file.read(&mut buffer));
        let read = read.with_context(|| path.display().to_string())?;
        anyhow::ensure!(read == SMALL_BYTES, "{} is cut short", path.display());
    }
    Ok(began.elapsed().as_secs_f64() * 1e6 / paths.len() as f64)
}
