//! A `dir:` store from outside: one file an object, its name the CID; and what a bad disk does to such files.

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::{cid, process};

/// Every stored object, sorted by CID. Names that begin with `.` are not objects.
pub fn objects(store: &Path) -> Vec<(String, PathBuf)> {
    files(store).into_iter().filter(|(_, path)| !is_hidden(path, store)).collect()
}

/// Files that are not objects, or not yet: what a running or a killed `flist pack` leaves.
pub fn unfinished(store: &Path) -> Vec<PathBuf> {
    files(store).into_iter().map(|(_, path)| path).filter(|path| is_hidden(path, store)).collect()
}

fn is_hidden(path: &Path, store: &Path) -> bool {
    let below = path.strip_prefix(store).unwrap_or(path);
    below.components().any(|c| c.as_os_str().as_encoded_bytes().starts_with(b"."))
}

/// Name and path of every file, sorted. A store may change meanwhile, so what vanishes is left out.
fn files(store: &Path) -> Vec<(String, PathBuf)> {
    let (mut out, mut todo) = (Vec::new(), vec![store.to_owned()]);
    while let Some(dir) = todo.pop() {
        let Ok(entries) = fs::read_dir(&dir) else { continue };
        for entry in entries.flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => todo.push(entry.path()),
                Ok(_) => out.push((entry.file_name().to_string_lossy().into_owned(), entry.path())),
                Err(_) => {}
            }
        }
    }
    out.sort();
    out
}

/// Sum of the sizes of all objects.
pub fn size(store: &Path) -> u64 {
    objects(store).iter().map(|(_, path)| fs::metadata(path).map_or(0, |m| m.len())).sum()
}

/// Panics unless every object is whole: its name is the CID of its bytes.
#[track_caller]
pub fn assert_whole(store: &Path) {
    let objects = objects(store);
    for some in objects.chunks(500) {
        let paths: Vec<OsString> = some.iter().map(|(_, path)| path.into()).collect();
        let lines = process::tool("sha256sum", paths).text();
        for ((name, path), line) in some.iter().zip(lines.lines()) {
            let digest: Vec<u8> = (0..32)
                .map(|i| u8::from_str_radix(&line[2 * i..2 * i + 2], 16).expect("sha256sum prints hex"))
                .collect();
            let codec = cid::codec(name).unwrap_or_else(|| panic!("no CID: {}", path.display()));
            assert_eq!(
                *name,
                cid::encode(codec, cid::SHA2_256, &digest),
                "the object {} is not whole",
                path.display()
            );
        }
    }
}

/// Ways in which a stored object goes bad.
#[derive(Debug, Clone)]
pub enum How {
    /// One bit is the other way round; the number counts from the start and wraps at the end.
    FlipBit(u64),
    /// The second half is gone.
    Truncate,
    /// A byte too many.
    Extend,
    /// Nothing left, as after a crash without fsync.
    Empty,
    /// The bytes of that other object.
    Swap(PathBuf),
    /// No such file.
    Remove,
}

/// A damaged object; remembers how it was.
#[must_use = "dropping it repairs the object"]
pub struct Damage {
    path: PathBuf,
    good: Vec<u8>,
}

impl Drop for Damage {
    fn drop(&mut self) {
        let _ = fs::write(&self.path, &self.good);
    }
}

/// Damages the object at `path` in place; the result repairs it when dropped.
pub fn damage(path: &Path, how: &How) -> Damage {
    let good = fs::read(path).unwrap_or_else(|e| panic!("read {}: {e}", path.display()));
    let done = match how {
        How::FlipBit(bit) => {
            let at = (bit / 8) % good.len() as u64;
            let byte = good[at as usize] ^ (1 << (bit % 8));
            OpenOptions::new().write(true).open(path).and_then(|f| f.write_all_at(&[byte], at))
        }
        How::Truncate => resize(path, good.len() as u64 / 2),
        How::Extend => resize(path, good.len() as u64 + 1),
        How::Empty => resize(path, 0),
        How::Swap(other) => fs::read(other).and_then(|bytes| fs::write(path, bytes)),
        How::Remove => fs::remove_file(path),
    };
    done.unwrap_or_else(|e| panic!("damage {} by {how:?}: {e}", path.display()));
    Damage { path: path.to_owned(), good }
}

fn resize(path: &Path, len: u64) -> std::io::Result<()> {
    OpenOptions::new().write(true).open(path)?.set_len(len)
}
