//! Many readers that miss the same block at the same time: it is to be fetched once.
//!
//! For a page of the page cache the kernel itself lets one of them through. Past it, with O_DIRECT, each reader is a
//! request of its own, and only the contender can see that one fetch serves them all. Neighbouring pages would not
//! do: they look like a stream, and read-ahead counts as fetches too.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Barrier;
use std::time::Instant;

use rustix::fs::{Advice, Mode, OFlags, fadvise, open};
use rustix::io::Errno;

use crate::compare::bench::{Bench, Memory};
use crate::compare::contender::{Cache, Reader};
use crate::compare::results::Log;
use crate::compare::trees::{BIG, RANDOM, Tree};

const READERS: usize = 64;

/// O_DIRECT reads into aligned memory only.
#[repr(align(4096))]
struct Page([u8; 4096]);

pub(super) fn run(bench: &Bench, reader: &dyn Reader, log: &mut Log<'_>) -> anyhow::Result<()> {
    let session = bench.mount(reader, Tree::Large, Cache::Empty, Memory::Empty)?;
    let middle = bench.trees.sizes.random_bytes / 2;
    for (part, name, flags) in
        [("flight/page", RANDOM, OFlags::empty()), ("flight/direct", BIG, OFlags::DIRECT)]
    {
        let Some(files) = open_often(&session.place().join(name), flags)? else { continue };
        let before = session.traffic()?;
        let milliseconds = read_at_once(&files, middle)?;
        log.add(part, milliseconds, session.since(&before)?);
    }
    session.end()
}

/// A file for each reader; nothing if the file system does not open files so.
fn open_often(path: &Path, flags: OFlags) -> anyhow::Result<Option<Vec<File>>> {
    let mut files = Vec::new();
    for _ in 0..READERS {
        match open(path, OFlags::RDONLY | OFlags::CLOEXEC | flags, Mode::empty()) {
            Err(Errno::INVAL) => return Ok(None),
            file => files.push(File::from(file?)),
        }
    }
    for file in &files {
        fadvise(file, 0, None, Advice::Random)?;
    }
    Ok(Some(files))
}

/// Milliseconds until the last reader has its page.
fn read_at_once(files: &[File], offset: u64) -> anyhow::Result<f64> {
    let ready = Barrier::new(files.len() + 1);
    std::thread::scope(|scope| {
        let read = |file: &File| {
            let mut page = Page([0; 4096]);
            ready.wait();
            file.read_exact_at(&mut page.0, offset)
        };
        let readers: Vec<_> = files.iter().map(|file| scope.spawn(move || read(file))).collect();
        ready.wait();
        let began = Instant::now();
        for reader in readers {
            reader.join().map_err(|_| anyhow::anyhow!("a reader panicked"))??;
        }
        Ok(began.elapsed().as_secs_f64() * 1e3)
    })
}
