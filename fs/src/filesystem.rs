//! The lazy filesystem: POSIX answers about one image. It knows no FUSE; `fuse` is its edge to the kernel.
//!
//! Metadata comes from the tree at once. Contents come frame by frame from the cache: what is there is answered at
//! once ([`Filesystem::read_now`]), what is missing is waited for ([`Filesystem::read`]), never both in one call, so
//! a thread of the kernel's queue never sleeps for a source.

mod ahead;
mod along;
mod around;
mod gather;
mod program;
mod recorder;

use std::ops::Range;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::stream::{self, StreamExt};
use g8_cache::{Cache, Class, GetError, Hit, PlainFrame, Sources, Terms};
use tokio::sync::Semaphore;

use crate::erofs::{self, Inode, Nid, TreeError};
use crate::format::{Part, Place};
use crate::image::Image;
use crate::log_quota::{LogId, LogQuota};
use crate::replay::Replay;
use ahead::Streams;
use gather::Gather;
pub use program::Begins;
use program::Programs;
use recorder::Recorder;

/// Runs of frames of one read that are fetched at the same time.
const PARALLEL: usize = 8;
/// Reads of one mount that may wait for sources at the same time; further ones queue without holding memory.
const MAX_WAITING: usize = 128;

/// Runs of frames that are fetched ahead at the same time, most of them waiting for their turn at a source: all of a full window,
/// since what is left out of it is a round trip when the reader comes to it.
const MAX_AHEAD: usize = 128;

/// Longest name; FUSE itself would pass on longer ones.
const NAME_MAX: usize = 255;

/// Why a question about the filesystem has no answer.
#[derive(Debug, thiserror::Error)]
pub enum FsError {
    /// No such name.
    #[error("no such file")]
    NotFound,
    /// No file has a name of more than 255 bytes.
    #[error("name too long")]
    NameTooLong,
    /// A component of the path is not a directory.
    #[error("not a directory")]
    NotADirectory,
    /// Only regular files have contents.
    #[error("is a directory")]
    IsADirectory,
    /// Neither a directory nor a regular file.
    #[error("not a regular file")]
    NotAFile,
    /// The file has no such attribute.
    #[error("no such attribute")]
    NoAttribute,
    /// A symlink loop, or a chain longer than any sane one.
    #[error("too many symbolic links")]
    Loop,
    /// The tree is not what the validator accepted, or the kernel asks for an inode it never got.
    #[error("the tree is damaged")]
    Tree(#[from] TreeError),
    /// The contents cannot be had.
    #[error(transparent)]
    Get(#[from] GetError),
}

/// What a mount has done so far.
#[derive(Debug, Default)]
pub struct Counters {
    /// Read requests answered, by whatever outcome.
    pub requests: AtomicU64,
    /// Bytes of contents handed out.
    pub bytes_read: AtomicU64,
    /// Frames that a reader found in memory.
    pub memory_hits: AtomicU64,
    /// Frames that a reader found in the disk tier.
    pub disk_hits: AtomicU64,
    /// Reads that ended in an error.
    pub errors: AtomicU64,
    /// The [`LogId`] of the last failure that was logged, or 0.
    pub last_logged: AtomicU64,
}

/// Contents that answer a read: a part of one frame as it is, or several parts joined.
#[derive(Debug)]
pub struct Contents(Bytes);

impl AsRef<[u8]> for Contents {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// One image, where its blocks come from, and how long a read may wait.
pub struct Filesystem {
    image: Arc<Image>,
    cache: Cache,
    sources: Sources,
    deadline: Duration,
    waiting: Semaphore,
    streams: Streams,
    ahead: Arc<Semaphore>,
    /// Stored bytes that are fetched along with what somebody waits for.
    along: AtomicU64,
    programs: Programs,
    recorder: Option<Recorder>,
    replay: Option<Arc<Replay>>,
    counters: Counters,
    logged: LogQuota,
}

/// Where a piece of a read comes from.
#[derive(Clone, Copy)]
enum Piece<'a> {
    Zero(u64),
    Inline(&'a [u8]),
    Frame { block: u32, frame: usize, from: usize, len: usize },
}

/// Consecutive frames of one block.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Run {
    block: u32,
    frames: Range<usize>,
}

impl Run {
    fn has(&self, block: u32, frame: usize) -> bool {
        self.block == block && self.frames.contains(&frame)
    }
}

/// Frames, in the order in which they are read, as runs. A frame that follows itself is in a run once.
fn runs(frames: impl Iterator<Item = (u32, usize)>) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for (block, frame) in frames {
        match runs.last_mut() {
            Some(run) if run.has(block, frame) => {}
            Some(run) if run.block == block && run.frames.end == frame => run.frames.end += 1,
            _ => runs.push(Run { block, frames: frame..frame + 1 }),
        }
    }
    runs
}

impl Piece<'_> {
    fn frame(&self) -> Option<(u32, usize)> {
        match self {
            Piece::Frame { block, frame, .. } => Some((*block, *frame)),
            Piece::Zero(_) | Piece::Inline(_) => None,
        }
    }
}

/// A read of what is at hand; it stops at the first piece that is not.
struct Here<'a> {
    fs: &'a Filesystem,
    gathered: Gather,
    missing: bool,
}

impl<'a> Here<'a> {
    fn new(fs: &'a Filesystem, len: u64) -> Self {
        Here { fs, gathered: Gather::new(len), missing: false }
    }

    /// Whether the piece was at hand.
    fn take(&mut self, piece: Piece<'_>) -> bool {
        match piece {
            Piece::Frame { block, frame, from, len } => {
                self.fs.note(block);
                match self.fs.cache.get_now(&self.fs.image.map.block(block), frame) {
                    Some((plain, hit)) => {
                        self.fs.count(hit);
                        self.gathered.frame(&plain, from, len)
                    }
                    None => {
                        self.missing = true;
                        false
                    }
                }
            }
            Piece::Zero(len) => self.gathered.zeros(len),
            Piece::Inline(bytes) => self.gathered.bytes(bytes),
        }
    }

    fn finish(self) -> Option<Contents> {
        (!self.missing).then(|| self.fs.answer(self.gathered))
    }
}

impl Filesystem {
    /// `deadline` is how long one read may take, whatever the sources do.
    pub fn new(image: Arc<Image>, cache: Cache, sources: Sources, deadline: Duration) -> Self {
        let waiting = Semaphore::new(MAX_WAITING);
        Filesystem {
            image,
            cache,
            sources,
            deadline,
            waiting,
            streams: Streams::default(),
            ahead: Arc::new(Semaphore::new(MAX_AHEAD)),
            along: AtomicU64::new(0),
            programs: Programs::default(),
            recorder: None,
            replay: None,
            counters: Counters::default(),
            logged: LogQuota::new(),
        }
    }

    /// The same, and it records which blocks are read.
    pub fn recording(self) -> Self {
        Filesystem { recorder: Some(Recorder::default()), ..self }
    }

    /// The same, and while this profile is followed nothing else is fetched along with what readers wait for.
    pub fn following(self, replay: Arc<Replay>) -> Self {
        Filesystem { replay: Some(replay), ..self }
    }

    /// The blocks that were read so far, by their numbers in the order of the first time, if they are recorded.
    pub fn recorded(&self) -> Option<Vec<u32>> {
        self.recorder.as_ref().map(Recorder::blocks)
    }

    /// What the profile that it follows has done.
    pub fn replay(&self) -> Option<&Arc<Replay>> {
        self.replay.as_ref()
    }

    /// The image.
    pub fn image(&self) -> &Arc<Image> {
        &self.image
    }

    /// Its sources.
    pub fn sources(&self) -> &Sources {
        &self.sources
    }

    /// What was done so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Counts a failure; the name to log it by, unless a process that reads a broken file in a loop has filled the log enough.
    pub(crate) fn failed(&self) -> Option<LogId> {
        self.counters.errors.fetch_add(1, Ordering::Relaxed);
        let id = self.logged.allows().then(LogId::new)?;
        self.counters.last_logged.store(id.0.into(), Ordering::Relaxed);
        Some(id)
    }

    /// The name of the last failure that was logged.
    pub fn last_logged(&self) -> Option<LogId> {
        let id = u32::try_from(self.counters.last_logged.load(Ordering::Relaxed)).ok()?;
        (id != 0).then_some(LogId(id))
    }

    /// Attributes of an inode.
    pub fn inode(&self, nid: Nid) -> Result<Inode, FsError> {
        Ok(self.image.tree.inode(nid)?)
    }

    /// The entry `name` of a directory.
    pub fn lookup(&self, dir: Nid, name: &[u8]) -> Result<Option<Inode>, FsError> {
        let dir = self.inode(dir)?;
        if !dir.is_dir() {
            return Err(FsError::NotADirectory);
        }
        if name.len() > NAME_MAX {
            return Err(FsError::NameTooLong);
        }
        match self.image.tree.lookup(&dir, name)? {
            Some(nid) => Ok(Some(self.inode(nid)?)),
            None => Ok(None),
        }
    }

    /// Reads without waiting: `None` when something is neither in memory nor on the disk.
    pub fn read_now(&self, nid: Nid, offset: u64, size: u32) -> Result<Option<Contents>, FsError> {
        let (inode, len) = self.readable(nid, offset, size)?;
        let mut here = Here::new(self, len);
        self.pieces(&inode, offset, len, &mut |piece| here.take(piece))?;
        Ok(here.finish())
    }

    /// Reads and waits for what is missing, at most as long as the deadline.
    pub async fn read(&self, nid: Nid, offset: u64, size: u32) -> Result<Contents, FsError> {
        let deadline = Instant::now() + self.deadline;
        let _turn = self.waiting.acquire().await.expect("the semaphore is never closed");
        let (inode, len) = self.readable(nid, offset, size)?;
        let mut pieces = Vec::new();
        self.pieces(&inode, offset, len, &mut |piece| {
            pieces.push(self.noted(piece));
            true
        })?;
        Ok(self.answer(self.gather(pieces, len, Class::OnDemand.until(deadline)).await?))
    }

    /// [`Filesystem::read_now`] of a data space itself, for the kernel that maps files to it.
    pub fn read_space_now(&self, device: erofs::Device, address: u64, len: u32) -> Option<Contents> {
        let mut here = Here::new(self, len.into());
        let mut parts = self.image.map.parts(device, address, len.into());
        parts.all(|part| self.frames(part, &mut |piece| here.take(piece)));
        here.finish()
    }

    /// [`Filesystem::read`] of a data space itself.
    pub async fn read_space(
        &self,
        device: erofs::Device,
        address: u64,
        len: u32,
    ) -> Result<Contents, FsError> {
        let terms = Class::OnDemand.until(Instant::now() + self.deadline);
        let _turn = self.waiting.acquire().await.expect("the semaphore is never closed");
        let mut pieces = Vec::new();
        for part in self.image.map.parts(device, address, len.into()) {
            self.frames(part, &mut |piece| {
                pieces.push(self.noted(piece));
                true
            });
        }
        Ok(self.answer(self.gather(pieces, len.into(), terms).await?))
    }

    /// A piece that somebody reads.
    fn noted<'a>(&self, piece: Piece<'a>) -> Piece<'a> {
        if let Some((block, _)) = piece.frame() {
            self.note(block);
        }
        piece
    }

    fn note(&self, block: u32) {
        if let Some(recorder) = &self.recorder {
            recorder.note(block);
        }
    }

    /// Where a byte of a file lies, for [`Filesystem::read_ahead`].
    pub fn place_of(&self, nid: Nid, offset: u64) -> Option<(erofs::Device, u64)> {
        let place = self.inode(nid).and_then(|inode| Ok(self.image.tree.map(&inode, offset)?.place));
        match place {
            Ok(erofs::Place::Device { device, address }) => Some((device, address)),
            Ok(erofs::Place::Hole | erofs::Place::Inline(_)) | Err(_) => None,
        }
    }

    /// Joins pieces in order. A few runs of frames are fetched at the same time, and each is let go when its pieces are
    /// joined, so a map that scatters a read over a thousand blocks costs time and not memory.
    async fn gather(&self, pieces: Vec<Piece<'_>>, len: u64, terms: Terms) -> Result<Gather, FsError> {
        let fetches =
            stream::iter(runs(pieces.iter().filter_map(Piece::frame))).map(|run| self.fetch(run, terms));
        let mut fetched = pin!(fetches.buffered(PARALLEL));
        let mut gathered = Gather::new(len);
        // The run that the last piece was in, and the number of its first frame.
        let mut current: (Run, Vec<PlainFrame>) = (Run { block: 0, frames: 0..0 }, Vec::new());
        for piece in pieces {
            match piece {
                Piece::Frame { block, frame, from, len } => {
                    if !current.0.has(block, frame) {
                        current = fetched.next().await.expect("every frame is in a run, in order")?;
                    }
                    gathered.frame(&current.1[frame - current.0.frames.start], from, len)
                }
                Piece::Zero(len) => gathered.zeros(len),
                Piece::Inline(bytes) => gathered.bytes(bytes),
            };
        }
        Ok(gathered)
    }

    /// The frames of one run.
    async fn fetch(&self, run: Run, terms: Terms) -> Result<(Run, Vec<PlainFrame>), GetError> {
        let desc = self.image.map.block(run.block);
        let found = self.cache.get_run(&desc, run.frames.clone(), &self.sources, terms).await?;
        let plain = found.into_iter().map(|(plain, hit)| {
            // What is fetched ahead nobody has read yet.
            if terms.class == Class::OnDemand {
                self.count(hit);
            }
            plain
        });
        Ok((run, plain.collect()))
    }

    /// What is left of a read after the end of file is taken into account.
    fn readable(&self, nid: Nid, offset: u64, size: u32) -> Result<(Inode, u64), FsError> {
        let inode = self.inode(nid)?;
        if inode.is_dir() {
            return Err(FsError::IsADirectory);
        }
        if !inode.is_file() {
            return Err(FsError::NotAFile);
        }
        Ok((inode, u64::from(size).min(inode.size.saturating_sub(offset))))
    }

    /// Calls `visit` with the pieces of a range in order, until it returns false.
    fn pieces<'a>(
        &'a self,
        inode: &Inode,
        offset: u64,
        len: u64,
        visit: &mut dyn FnMut(Piece<'a>) -> bool,
    ) -> Result<(), FsError> {
        let end = offset + len;
        let mut at = offset;
        while at < end {
            let mapping = self.image.tree.map(inode, at)?;
            let run = mapping.len.min(end - at);
            let go_on = match mapping.place {
                erofs::Place::Hole => visit(Piece::Zero(run)),
                erofs::Place::Inline(bytes) => visit(Piece::Inline(&bytes[..run as usize])),
                erofs::Place::Device { device, address } => {
                    let mut parts = self.image.map.parts(device, address, run);
                    parts.all(|part| self.frames(part, visit))
                }
            };
            if !go_on {
                return Ok(());
            }
            at += run;
        }
        Ok(())
    }

    /// Splits a part at frame borders.
    fn frames<'a>(&'a self, part: Part, visit: &mut dyn FnMut(Piece<'a>) -> bool) -> bool {
        let Place::Block { block, offset } = part.place else { return visit(Piece::Zero(part.len)) };
        let frame_len = u64::from(self.image.map.frame_len());
        let mut at = u64::from(offset);
        let end = at + part.len;
        while at < end {
            let frame = at / frame_len;
            let len = ((frame + 1) * frame_len).min(end) - at;
            let from = at - frame * frame_len;
            if !visit(Piece::Frame { block, frame: frame as usize, from: from as usize, len: len as usize }) {
                return false;
            }
            at += len;
        }
        true
    }

    fn count(&self, hit: Hit) {
        match hit {
            Hit::Memory => self.counters.memory_hits.fetch_add(1, Ordering::Relaxed),
            Hit::Disk => self.counters.disk_hits.fetch_add(1, Ordering::Relaxed),
            Hit::Source => 0,
        };
    }

    fn answer(&self, gathered: Gather) -> Contents {
        let contents = gathered.finish();
        self.counters.bytes_read.fetch_add(contents.0.len() as u64, Ordering::Relaxed);
        contents
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_joined_to_runs_in_the_order_of_reading() {
        let run = |block, frames| Run { block, frames };
        let of = |frames: &[(u32, usize)]| runs(frames.iter().copied());
        assert_eq!(of(&[(7, 1), (7, 1), (7, 2), (7, 3)]), [run(7, 1..4)]);
        assert_eq!(of(&[(7, 1), (8, 2), (7, 2)]), [run(7, 1..2), run(8, 2..3), run(7, 2..3)]);
        assert_eq!(of(&[(7, 1), (7, 0), (7, 1), (7, 3)]), [run(7, 1..2), run(7, 0..2), run(7, 3..4)]);
        assert!(of(&[]).is_empty());
    }
}
