//! The cache of a process: memory tier, disk tier, and one flight per missing block; shared by all mounts.
//!
//! ```text
//! get_now:  frames in memory -> stored blocks in memory -> disk              (never waits for a source)
//! get:      get_now -> the frame alone, if it can be proven -> join or start the flight of the block -> decode
//! flight:   sources in order: fetch, verify -> keep (memory, disk or seals) -> give to all who wait
//! ```
//!
//! A failure is given to those who wait for it and to nobody later. A reader that goes away, or whose deadline passes,
//! ends nothing but its own waiting. Wherever a read waits its turn, the most urgent class is served first; who joins
//! a flight makes it as urgent as itself.

mod flight;
mod sealed;
mod stats;

use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crate::block::{PlainFrame, VerifiedBlock};
use crate::class::{Class, Terms, Urgency};
use crate::codec::DecodeError;
use crate::desc::{BlockDesc, FrameSpan, OwnedBlockDesc};
use crate::disk::DiskTier;
use crate::error::GetError;
use crate::id::BlockId;
use crate::memory::{FrameKey, MemoryTier};
use crate::sources::Sources;
use crate::workers::Workers;
use flight::{FlightKey, Flights};
use stats::HitCounts;

pub use crate::disk::{DiskState, DiskStats};
pub use crate::memory::MemoryStats;
pub use stats::{CacheStats, HitStats};

/// A flight ends after this, its wait for a place included, whatever its readers' deadlines: the longest that any of
/// them is worth waiting for.
const FLIGHT_LIMIT: Duration = Duration::from_secs(60);

/// One part in so many of a disk tier is what those who asked for nothing may have others leave for.
const UNASKED_PART: u64 = 8;

/// What a cache may use.
#[derive(Clone, Debug)]
pub struct CacheConfig {
    /// Directory of the disk tier; none is memory only.
    pub dir: Option<PathBuf>,
    /// Most bytes of the disk tier's files; can be changed later.
    pub disk_budget: u64,
    /// Nothing is put on disk while its file system has fewer bytes free.
    pub free_floor: u64,
    /// Most bytes of the memory tier.
    pub memory_budget: u64,
}

/// Why a cache did not open. A damaged database is not among the reasons: it is replaced.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process owns the directory: ask that one, or use another directory.
    #[error("cache directory {} is in use by another process", dir.display())]
    Busy {
        /// The directory.
        dir: PathBuf,
    },
    /// Somebody else could put symlinks into the directory.
    #[error("cache {} belongs to another user or can be written by others: use a --cache of your own", dir.display())]
    Foreign {
        /// The directory.
        dir: PathBuf,
    },
    /// The directory cannot be made or locked.
    #[error("cache directory {} cannot be used", dir.display())]
    Directory {
        /// The directory.
        dir: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Where bytes came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hit {
    /// The memory tier.
    Memory,
    /// The disk tier.
    Disk,
    /// A source, by a flight of this reader's or another one's.
    Source,
}

/// The cache. A clone is the same cache; the last one dropped flushes and gives the directory free.
#[derive(Clone)]
pub struct Cache(Arc<Inner>);

struct Inner {
    memory: MemoryTier,
    disk: Option<DiskTier>,
    flights: Flights,
    workers: Workers,
    hits: HitCounts,
}

impl Cache {
    /// Opens a cache and takes its directory for this process.
    pub fn open(config: CacheConfig) -> Result<Cache, OpenError> {
        let disk = match &config.dir {
            Some(dir) => Some(DiskTier::open(dir, config.disk_budget, config.free_floor)?),
            None => None,
        };
        Ok(Cache(Arc::new(Inner {
            memory: MemoryTier::new(config.memory_budget),
            disk,
            flights: Flights::default(),
            workers: Workers::new(),
            hits: HitCounts::default(),
        })))
    }

    /// The frame if it is here. Reads the local disk at most; never waits for a source.
    pub fn get_now(&self, desc: &BlockDesc<'_>, frame: usize) -> Option<(PlainFrame, Hit)> {
        self.0.here(desc, desc.frame(frame)?)
    }

    /// The frame, from here or from the sources. Must run on a tokio runtime, which outlives the call. The terms are a
    /// deadline, for an on-demand read, or [`crate::Class::until`] one.
    pub async fn get(
        &self,
        desc: &BlockDesc<'_>,
        frame: usize,
        sources: &Sources,
        terms: impl Into<Terms>,
    ) -> Result<(PlainFrame, Hit), GetError> {
        let id = desc.id();
        let span = desc
            .frame(frame)
            .ok_or(GetError::Damaged { id, source: DecodeError::NoSuchFrame { id, index: frame } })?;
        if let Some(found) = self.0.decoded(id, span) {
            return Ok(found);
        }
        let Terms { class, deadline } = terms.into();
        within(id, deadline, sources, self.get_absent(desc.to_owned(), span, sources, class)).await
    }

    /// Consecutive frames of one block, each as [`Cache::get`] would give it: looked for in one job, fetched once, decoded in
    /// one job.
    pub async fn get_run(
        &self,
        desc: &BlockDesc<'_>,
        frames: Range<usize>,
        sources: &Sources,
        terms: impl Into<Terms>,
    ) -> Result<Vec<(PlainFrame, Hit)>, GetError> {
        let terms = terms.into();
        if frames.len() == 1 {
            return Ok(vec![self.get(desc, frames.start, sources, terms).await?]);
        }
        let id = desc.id();
        let missing = |index| GetError::Damaged { id, source: DecodeError::NoSuchFrame { id, index } };
        let spans: Result<Vec<FrameSpan>, GetError> =
            frames.map(|index| desc.frame(index).ok_or_else(|| missing(index))).collect();
        let absent = self.get_run_absent(desc.to_owned(), spans?, sources, terms.class);
        within(id, terms.deadline, sources, absent).await
    }

    async fn get_run_absent(
        &self,
        desc: OwnedBlockDesc,
        spans: Vec<FrameSpan>,
        sources: &Sources,
        class: Class,
    ) -> Result<Vec<(PlainFrame, Hit)>, GetError> {
        let (run, urgency) = (Arc::new((desc, spans)), Urgency::new(class));
        let (inner, wanted) = (Arc::clone(&self.0), Arc::clone(&run));
        let look_up = move || -> Option<Vec<_>> {
            let desc = wanted.0.as_desc();
            wanted.1.iter().map(|span| inner.here(&desc, *span)).collect()
        };
        if let Some(found) = self.0.workers.run(&urgency, look_up).await {
            return Ok(found);
        }
        let desc = run.0.as_desc();
        let block = self.join_flight(desc.id(), desc.frames().into(), sources, class).await?;
        let (inner, run) = (Arc::clone(&self.0), Arc::clone(&run));
        let land = move || {
            let desc = run.0.as_desc();
            run.1.iter().map(|span| inner.land(&block, &desc, *span)).collect()
        };
        self.0.workers.run(&urgency, land).await
    }

    /// A whole metadata object, or a whole block: its stored bytes, proven.
    pub async fn get_object(
        &self,
        id: BlockId,
        sources: &Sources,
        terms: impl Into<Terms>,
    ) -> Result<VerifiedBlock, GetError> {
        if let Some(block) = self.0.memory.block(&id) {
            self.0.hits.count(Hit::Memory);
            return Ok(block);
        }
        let Terms { class, deadline } = terms.into();
        within(id, deadline, sources, async {
            let inner = Arc::clone(&self.0);
            let look_up = move || inner.object_on_disk(&id);
            if let Some(block) = self.0.workers.run(&Urgency::new(class), look_up).await {
                return Ok(block);
            }
            let block = self.join_flight(id, Arc::from([]), sources, class).await?;
            self.0.hits.count(Hit::Source);
            Ok(block)
        })
        .await
    }

    /// Has a block here that will perhaps be wanted: fetched unless it is, and nothing of it decoded.
    pub async fn bring(
        &self,
        desc: &BlockDesc<'_>,
        sources: &Sources,
        terms: impl Into<Terms>,
    ) -> Result<(), GetError> {
        let id = desc.id();
        if self.0.memory.block(&id).is_some() {
            return Ok(());
        }
        let Terms { class, deadline } = terms.into();
        within(id, deadline, sources, async {
            let inner = Arc::clone(&self.0);
            let look_up = move || inner.disk.as_ref().is_some_and(|disk| disk.has(&id));
            if !self.0.workers.run(&Urgency::new(class), look_up).await {
                self.join_flight(id, desc.frames().into(), sources, class).await?;
            }
            Ok(())
        })
        .await
    }

    /// A whole block for somebody else than the readers of this cache, if all of it is here. It is no use of the block: it
    /// stays here no longer for it, takes no place in the memory tier, and is not counted; and who reads waits for nobody
    /// who asks so. Must run on a tokio runtime.
    pub async fn held(&self, id: BlockId) -> Option<VerifiedBlock> {
        if let Some(block) = self.0.memory.peek_block(&id) {
            return Some(block);
        }
        let inner = Arc::clone(&self.0);
        let look_up = move || inner.disk.as_ref()?.peek(&id);
        self.0.workers.run(&Urgency::new(Class::Background), look_up).await
    }

    /// Whether more may come that nobody has asked for yet: `bytes`, what is under way included, of `all` that came or comes
    /// for the same reason. It may take free room; and since a disk tier is full for most of its life, as little in all as
    /// makes but its oldest part go, which nobody has read for long. Where nothing is kept on the disk the memory decides.
    pub fn welcomes(&self, bytes: u64, all: u64) -> bool {
        match self.0.disk.as_ref().filter(|disk| disk.takes_blocks()) {
            Some(disk) => {
                let DiskStats { bytes: taken, budget, .. } = disk.stats();
                taken.saturating_add(bytes) <= budget || all <= budget / UNASKED_PART
            }
            None => self.0.memory.has_room(bytes),
        }
    }

    /// What the cache holds and did.
    pub fn stats(&self) -> CacheStats {
        CacheStats {
            memory: self.0.memory.stats(),
            disk: self.0.disk.as_ref().map(DiskTier::stats).unwrap_or_default(),
            hits: self.0.hits.snapshot(),
        }
    }

    /// Changes the budget of the disk tier; what is over it goes now.
    pub fn set_disk_budget(&self, bytes: u64) {
        if let Some(disk) = &self.0.disk {
            disk.set_budget(bytes);
        }
    }

    /// Empties both tiers.
    pub fn clear(&self) {
        self.0.memory.clear();
        if let Some(disk) = &self.0.disk {
            disk.clear();
        }
    }

    /// Writes what the disk tier has in memory to its files, and waits for it.
    pub fn flush(&self) {
        if let Some(disk) = &self.0.disk {
            disk.flush();
        }
    }

    /// Brings the disk tier under its budget now, and removes a damaged database that was set aside.
    pub fn gc(&self) {
        if let Some(disk) = &self.0.disk {
            disk.gc();
        }
    }

    async fn get_absent(
        &self,
        desc: OwnedBlockDesc,
        span: FrameSpan,
        sources: &Sources,
        class: Class,
    ) -> Result<(PlainFrame, Hit), GetError> {
        let (desc, urgency) = (Arc::new(desc), Urgency::new(class));
        let (inner, described) = (Arc::clone(&self.0), Arc::clone(&desc));
        let look_up = move || inner.here(&described.as_desc(), span);
        if let Some(found) = self.0.workers.run(&urgency, look_up).await {
            return Ok(found);
        }
        if let Some(found) = self.get_sealed(&desc, span, sources, &urgency).await {
            return Ok(found);
        }
        let id = desc.as_desc().id();
        let block = self.join_flight(id, desc.as_desc().frames().into(), sources, class).await?;
        let inner = Arc::clone(&self.0);
        self.0.workers.run(&urgency, move || inner.land(&block, &desc.as_desc(), span)).await
    }

    async fn join_flight(
        &self,
        id: BlockId,
        frames: Arc<[u32]>,
        sources: &Sources,
        class: Class,
    ) -> Result<VerifiedBlock, GetError> {
        let key = FlightKey { id, sources: sources.identity() };
        let just_landed = || self.0.memory.block(&id);
        // A flight must not keep the directory locked after the last handle went.
        let start = |urgency| {
            fetch_and_keep(Arc::downgrade(&self.0), id, Arc::clone(&frames), sources.clone(), urgency)
        };
        self.0.flights.join(key, class, just_landed, start).await
    }
}

impl Inner {
    /// A frame that is in memory, decoded.
    fn decoded(&self, id: BlockId, span: FrameSpan) -> Option<(PlainFrame, Hit)> {
        let plain = self.memory.frame(&FrameKey { id, span })?;
        self.hits.count(Hit::Memory);
        Some((plain, Hit::Memory))
    }

    /// A frame that is in memory or on disk.
    fn here(&self, desc: &BlockDesc<'_>, span: FrameSpan) -> Option<(PlainFrame, Hit)> {
        if let Some(found) = self.decoded(desc.id(), span) {
            return Some(found);
        }
        let (plain, hit) = match self.memory.block(&desc.id()) {
            // That proven bytes do not decode is told by `get`, which finds them the same way.
            Some(block) => (block.decode(desc, span.index as usize).ok()?, Hit::Memory),
            None => (self.disk.as_ref()?.frame(desc, span)?, Hit::Disk),
        };
        self.memory.put_frame(FrameKey { id: desc.id(), span }, &plain);
        self.hits.count(hit);
        Some((plain, hit))
    }

    fn object_on_disk(&self, id: &BlockId) -> Option<VerifiedBlock> {
        let block = self.disk.as_ref()?.block(id)?;
        self.memory.put_block(&block);
        self.hits.count(Hit::Disk);
        Some(block)
    }

    /// Decodes a frame of a block that a flight brought, unless another reader of it did so just now.
    fn land(
        &self,
        block: &VerifiedBlock,
        desc: &BlockDesc<'_>,
        span: FrameSpan,
    ) -> Result<(PlainFrame, Hit), GetError> {
        let id = desc.id();
        let key = FrameKey { id, span };
        let plain = match self.memory.frame(&key) {
            Some(plain) => plain,
            None => {
                let plain = block
                    .decode(desc, span.index as usize)
                    .map_err(|source| GetError::Damaged { id, source })?;
                self.memory.put_frame(key, &plain);
                plain
            }
        };
        self.hits.count(Hit::Source);
        Ok((plain, Hit::Source))
    }
}

/// The flight of a block: its bytes are proven, and can be found here, before anyone gets them.
async fn fetch_and_keep(
    inner: Weak<Inner>,
    id: BlockId,
    frames: Arc<[u32]>,
    sources: Sources,
    urgency: Arc<Urgency>,
) -> Result<VerifiedBlock, GetError> {
    // By the clock that the timers go by: one that tests have advanced must not end a flight before it begins.
    let end = tokio::time::Instant::now() + FLIGHT_LIMIT;
    let (block, source) = sources.fetch_from(id, &urgency, end.into_std()).await?;
    let Some(inner) = inner.upgrade() else { return Ok(block) };
    // What somebody asked for does not make room for what nobody has asked for yet.
    if urgency.now() < Class::Profile {
        inner.memory.put_block(&block);
    } else {
        inner.memory.put_block_if_room(&block);
    }
    if source.keep()
        && let Some(disk) = &inner.disk
    {
        if !disk.put_soon(&block, &frames) {
            // They come faster than the disk takes them: who waits for this one keeps pace with it.
            let (keeper, kept) = (Arc::clone(&inner), block.clone());
            let put = move || keeper.disk.as_ref().map(|disk| disk.put(&kept, &frames));
            inner.workers.run(&urgency, put).await;
        }
    } else if source.reads_ranges() && !frames.is_empty() && inner.memory.seals().wants(id) {
        // Nobody waits for the seals, and they do not hold the cache. Those who wait do not bring more of them than they
        // keep pace with: the block that one of them fetches next is hashed after the seals of this one.
        let (seals, workers) = (Arc::clone(inner.memory.seals()), inner.workers.clone());
        let sealed = block.clone();
        tokio::spawn(async move { workers.run(&urgency, move || seals.seal(&sealed, &frames)).await });
    }
    Ok(block)
}

/// The caller's deadline around `work`.
async fn within<T>(
    id: BlockId,
    deadline: Instant,
    sources: &Sources,
    work: impl Future<Output = Result<T, GetError>>,
) -> Result<T, GetError> {
    let started = Instant::now();
    let mut work = std::pin::pin!(work);
    match tokio::time::timeout_at(deadline.into(), work.as_mut()).await {
        Ok(outcome) => outcome,
        Err(_) => Err(GetError::TimedOut { id, waited: started.elapsed(), said: sources.trouble() }),
    }
}
