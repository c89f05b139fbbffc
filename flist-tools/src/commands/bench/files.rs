//! Reading files on demand: some, spread evenly over the tree, one after another and each to its end.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::fs::{Mode, OFlags};

use super::place::{Place, Use};
use crate::cli::BenchArgs;

/// What one round found.
pub struct Files {
    /// How many.
    pub count: usize,
    /// Sum of their sizes.
    pub bytes: u64,
    /// First time, and the time of each file.
    pub cold: (Use, Vec<Duration>),
    /// Second time.
    pub warm: (Use, Vec<Duration>),
}

pub fn measure(place: &Place, args: &BenchArgs) -> anyhow::Result<Files> {
    let files = spread(regular_files(place.path())?, args.files as usize);
    let mut bytes = 0;
    let mut pass = || -> anyhow::Result<(Use, Vec<Duration>)> {
        let since = place.now()?;
        let began = Instant::now();
        bytes = 0;
        let times = files.iter().map(|file| {
            let began = Instant::now();
            bytes += read(file).with_context(|| file.display().to_string())?;
            Ok(began.elapsed())
        });
        let times = times.collect::<anyhow::Result<Vec<_>>>()?;
        Ok((place.used(began, &since)?, times))
    };
    let (cold, warm) = (pass()?, pass()?);
    Ok(Files { count: files.len(), bytes, cold, warm })
}

/// Every `n`-th of them, so that `wanted` are left.
fn spread(files: Vec<PathBuf>, wanted: usize) -> Vec<PathBuf> {
    let step = (files.len() / wanted.max(1)).max(1);
    files.into_iter().step_by(step).take(wanted).collect()
}

/// The regular files with contents, in the order of the tree.
fn regular_files(root: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let (mut files, mut pending) = (Vec::new(), vec![root.to_owned()]);
    while let Some(dir) = pending.pop() {
        let entries = fs::read_dir(&dir).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let mut entries = match entries {
            // Not root: some directories are not for us.
            Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => continue,
            other => other.with_context(|| dir.display().to_string())?,
        };
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries.into_iter().rev() {
            let meta = entry.metadata().with_context(|| entry.path().display().to_string())?;
            if meta.is_dir() {
                pending.push(entry.path());
            } else if meta.is_file() && meta.len() > 0 && readable(&entry.path()) {
                files.push(entry.path());
            }
        }
    }
    Ok(files)
}

fn readable(path: &Path) -> bool {
    rustix::fs::access(path, rustix::fs::Access::READ_OK).is_ok()
}

fn read(path: &Path) -> anyhow::Result<u64> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    let (mut buffer, mut bytes) = (vec![0; 128 * 1024], 0);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(bytes),
            n => bytes += n as u64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_are_spread_over_the_whole_tree() {
        let all: Vec<PathBuf> = (0..1000).map(|n| n.to_string().into()).collect();
        let some = spread(all.clone(), 10);
        assert_eq!(some.len(), 10);
        assert_eq!((some[0].to_str(), some[9].to_str()), (Some("0"), Some("900")));
        assert_eq!(spread(all, 5000).len(), 1000);
        assert!(spread(Vec::new(), 10).is_empty());
    }
}
