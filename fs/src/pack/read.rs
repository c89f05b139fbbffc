//! Reading: worker threads open, cut and hash files; the caller gets what they found in tree order.
//!
//! Every file (or group of small ones) is a task with a short queue of its own. Tasks are started in order and
//! drained in order, so the worker that the caller waits for is always running and the others run at most a few
//! tasks and a few pieces ahead.

use std::cell::Cell;
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::Scope;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};
use rustix::fs::{SeekFrom, Stat, fstat, seek};

use super::Progress;
use super::segment::{BUNDLED_BELOW, Piece, Segmenter};
use super::walk::{Kind, Tree};
use crate::erofs::BLOCK_SIZE;

/// Small files are read in groups of about this many bytes and files, so that queues cost little.
const GROUP_BYTES: u64 = 512 * 1024;
const GROUP_FILES: usize = 128;
const READ_BYTES: usize = 1 << 20;
/// Bytes of pieces that are handed over at once.
const MAX_BATCH: usize = 512 * 1024;
/// How often a caller that waits for a slow file looks whether it should stop.
const LOOK: Duration = Duration::from_millis(100);
/// Messages of one task that may wait for the caller.
const TASK_QUEUE: usize = 4;
/// Tasks started ahead, per thread.
const AHEAD: usize = 4;

/// What the caller learns about a file, in order: its pieces, then how it ended.
#[derive(Debug)]
pub(super) struct Event {
    pub entry: u32,
    pub what: What,
}

#[derive(Debug)]
pub(super) enum What {
    Piece(Piece),
    /// All of it was read and it did not change meanwhile.
    End {
        holes: Vec<Range<u64>>,
        /// `e_machine` when the file is an ELF file.
        elf_machine: Option<u16>,
    },
    /// It is not what the walk saw any more.
    Changed,
    Failed(io::Error),
}

type Task = (Vec<u32>, Sender<Vec<Event>>);

/// Reads the non-empty regular files of `tree` on `threads` threads; the iterator gives their events in tree order.
pub(super) fn in_order<'scope, 'env>(
    scope: &'scope Scope<'scope, 'env>,
    tree: &'env Tree,
    threads: usize,
    progress: &'env Progress,
    cancel: &'env AtomicBool,
) -> impl Iterator<Item = Result<Event, Cancelled>> + use<'env> {
    let (start, tasks) = unbounded::<Task>();
    for _ in 0..threads {
        let tasks: Receiver<Task> = tasks.clone();
        scope.spawn(move || {
            let mut buffer = vec![0; READ_BYTES];
            for (files, events) in tasks {
                // The caller has gone: nobody wants the rest.
                let _ = run_task(tree, &files, &events, &mut buffer, progress, cancel);
            }
        });
    }
    let mut groups = groups(tree);
    let mut running: VecDeque<Receiver<Vec<Event>>> = VecDeque::new();
    let mut batch = Vec::new().into_iter();
    std::iter::from_fn(move || {
        loop {
            if cancel.load(Ordering::Relaxed) {
                return Some(Err(Cancelled));
            }
            if let Some(event) = batch.next() {
                return Some(Ok(event));
            }
            while running.len() < threads * AHEAD
                && let Some(files) = groups.next()
            {
                let (send, receive) = bounded(TASK_QUEUE);
                start.send((files, send)).expect("the workers live as long as this iterator");
                running.push_back(receive);
            }
            match running.front()?.recv_timeout(LOOK) {
                Ok(events) => batch = events.into_iter(),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    running.pop_front();
                }
            }
        }
    })
}

/// The files to read, in tree order: small ones in groups, larger ones alone.
fn groups(tree: &Tree) -> impl Iterator<Item = Vec<u32>> + use<'_> {
    let mut files = tree
        .entries
        .iter()
        .enumerate()
        .filter(|(_, e)| matches!(e.kind, Kind::Regular) && e.stat.st_size > 0)
        .map(|(index, e)| (index as u32, e.stat.st_size as u64))
        .peekable();
    std::iter::from_fn(move || {
        let (first, mut bytes) = files.next()?;
        let mut group = vec![first];
        while bytes < GROUP_BYTES
            && group.len() < GROUP_FILES
            && let Some((index, size)) = files.next_if(|(_, size)| *size < BUNDLED_BELOW as u64)
        {
            group.push(index);
            bytes += size;
        }
        Some(group)
    })
}

struct CallerGone;

/// Somebody asked to stop.
#[derive(Debug)]
pub(super) struct Cancelled;

fn run_task(
    tree: &Tree,
    files: &[u32],
    events: &Sender<Vec<Event>>,
    buffer: &mut [u8],
    progress: &Progress,
    cancel: &AtomicBool,
) -> Result<(), CallerGone> {
    let mut batch = Vec::new();
    let mut waiting = 0;
    for &entry in files {
        let stat = &tree.entries[entry as usize].stat;
        let end = {
            let mut gone = false;
            let mut emit = |piece: Piece| {
                waiting += piece.data.len();
                batch.push(Event { entry, what: What::Piece(piece) });
                if waiting >= MAX_BATCH {
                    waiting = 0;
                    gone |= events.send(std::mem::take(&mut batch)).is_err();
                }
                !gone
            };
            let go_on = || !cancel.load(Ordering::Relaxed);
            match read_file(tree, entry, stat, buffer, &mut emit, &go_on) {
                Ok(end) => end,
                // Gone, or something else is in its place: a symlink, a socket, or a file where its directory was.
                Err(e)
                    if matches!(
                        e.raw_os_error(),
                        Some(libc::ENOENT | libc::ELOOP | libc::ENXIO | libc::ENOTDIR)
                    ) =>
                {
                    What::Changed
                }
                Err(e) => What::Failed(e),
            }
        };
        progress.bytes_read.fetch_add(stat.st_size as u64, Ordering::Relaxed);
        batch.push(Event { entry, what: end });
    }
    events.send(batch).map_err(|_| CallerGone)
}

/// Reads one file through; `emit` says whether to go on.
fn read_file(
    tree: &Tree,
    entry: u32,
    expected: &Stat,
    buffer: &mut [u8],
    emit: &mut dyn FnMut(Piece) -> bool,
    wanted: &dyn Fn() -> bool,
) -> io::Result<What> {
    let file = tree.open(entry)?;
    if !same(&fstat(&file)?, expected) {
        return Ok(What::Changed);
    }
    let size = expected.st_size as u64;
    let elf_machine = Cell::new(None);
    let go_on = Cell::new(true);
    let mut segmenter = Segmenter::new(|piece: Piece| {
        if piece.at == 0 {
            elf_machine.set(machine(&piece.data));
        }
        if go_on.get() {
            go_on.set(emit(piece));
        }
    });
    let sparse = (expected.st_blocks as u64) * 512 < size;
    let mut at = 0;
    // Without a caller nobody looks at how this ends.
    while at < size && go_on.get() && wanted() {
        if sparse && let Some(data) = skip_hole(&file, at, size)? {
            segmenter.push_zeros(data - at);
            at = data;
            continue;
        }
        let want = buffer.len().min((size - at) as usize);
        match file.read_exact_at(&mut buffer[..want], at) {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(What::Changed),
            other => other?,
        }
        segmenter.push(&buffer[..want]);
        at += want as u64;
    }
    let holes = segmenter.finish();
    if !same(&fstat(&file)?, expected) {
        return Ok(What::Changed);
    }
    Ok(What::End { holes, elf_machine: elf_machine.get() })
}

/// Where data begins again when `at` lies in a hole that spans at least one aligned block. Only a hint to read less.
fn skip_hole(file: &File, at: u64, size: u64) -> io::Result<Option<u64>> {
    let data = match seek(file, SeekFrom::Data(at)) {
        Ok(data) => data.min(size),
        Err(rustix::io::Errno::NXIO) => size,
        Err(_) => return Ok(None),
    };
    let aligned = if data == size { size } else { data / BLOCK_SIZE * BLOCK_SIZE };
    Ok((aligned > at).then_some(aligned))
}

/// Whether two looks at a file saw the same inode with the same contents.
fn same(a: &Stat, b: &Stat) -> bool {
    let facts = |s: &Stat| {
        (
            s.st_dev,
            s.st_ino,
            s.st_size,
            s.st_mode,
            (s.st_mtime, s.st_mtime_nsec),
            (s.st_ctime, s.st_ctime_nsec),
        )
    };
    facts(a) == facts(b)
}

/// `e_machine` of an ELF header (elf(5): bytes 18 and 19; little endian as on every machine we run on).
fn machine(bytes: &[u8]) -> Option<u16> {
    let header = bytes.get(..20)?;
    header.starts_with(b"\x7fELF\x02\x01").then(|| u16::from_le_bytes([header[18], header[19]]))
}
