//! Following a profile: the blocks that somebody else needed are fetched in the order of need, while the mount is made and
//! used.
//!
//! The profile is fetched beside the metadata, and its blocks follow as soon as the map is there, many at a time, in a class
//! below all that readers wait for: a block that is wanted meanwhile is asked for once and becomes urgent. What is under way
//! is bounded by bytes, since a reader who wants something else waits behind it; and all of it takes free room in the cache, or
//! that of a small part of it which has not been read for longest. A profile that cannot be had or used is said and does no
//! harm. It ends with the mount.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use futures::stream::{FuturesUnordered, StreamExt};
use g8_cache::{BlockId, Cache, Class, GetError, Sources};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use crate::format::{FormatError, Profile};
use crate::image::Image;

/// Blocks under way, as many as the sources of a mount give places to a profile.
const MAX_FLIGHTS: usize = 16;
/// Stored bytes under way: twice what the way carries within these. Whoever wants something else waits behind them.
const UNDER_WAY_MIN: u64 = 768 << 10;
const UNDER_WAY_MAX: u64 = 1536 << 10;
/// Stored bytes that one profile may bring.
const MAX_BYTES: u64 = 512 << 20;
/// Blocks that fail one after the other until no more are asked for: the sources have other worries.
const MAX_FAILURES: u32 = 16;

/// Why a profile is of no use.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// It cannot be had.
    #[error("it cannot be had")]
    Get(#[from] GetError),
    /// It is none, or one of another flist.
    #[error("it is not one of this flist")]
    Format(#[from] FormatError),
}

/// What a profile has done for a mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProfileStatus {
    /// Its CID.
    pub cid: BlockId,
    /// Blocks that it names.
    pub wanted: u64,
    /// Those of them that are in the cache now or were there before.
    pub fetched: u64,
    /// Whether more are coming.
    pub is_under_way: bool,
    /// Why it is of no use, or was not followed to its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

/// A profile that is followed until this is dropped or told to stop.
#[derive(Debug)]
pub struct Replay {
    shared: Arc<Shared>,
    task: AbortHandle,
}

#[derive(Debug)]
struct Shared {
    id: BlockId,
    wanted: AtomicU64,
    fetched: AtomicU64,
    is_under_way: AtomicBool,
    trouble: OnceLock<String>,
}

/// Where blocks come from and go to.
#[derive(Clone)]
pub struct Way {
    /// Where they go.
    pub cache: Cache,
    /// Where they come from.
    pub sources: Sources,
    /// How long one may take.
    pub deadline: Duration,
}

impl Replay {
    /// Fetches the profile `id` now, and follows it when the image has come by what is returned.
    pub fn begin(
        id: BlockId,
        way: Way,
        runtime: &tokio::runtime::Handle,
    ) -> (Replay, oneshot::Sender<Arc<Image>>) {
        let shared = Arc::new(Shared {
            id,
            wanted: AtomicU64::new(0),
            fetched: AtomicU64::new(0),
            is_under_way: AtomicBool::new(true),
            trouble: OnceLock::new(),
        });
        let (opened, image) = oneshot::channel();
        let task = runtime.spawn(run(Ending(shared.clone()), way, image)).abort_handle();
        (Replay { shared, task }, opened)
    }

    /// Fetches no more; what is under way may still come.
    pub fn stop(&self) {
        self.task.abort();
    }

    /// Whether its blocks are being fetched: it is here, and it is not over.
    pub fn is_followed(&self) -> bool {
        self.shared.is_under_way.load(Relaxed) && self.shared.wanted.load(Relaxed) > 0
    }

    /// What it has done.
    pub fn status(&self) -> ProfileStatus {
        let Shared { id, wanted, fetched, is_under_way, trouble } = &*self.shared;
        ProfileStatus {
            cid: *id,
            wanted: wanted.load(Relaxed),
            fetched: fetched.load(Relaxed),
            is_under_way: is_under_way.load(Relaxed),
            trouble: trouble.get().cloned(),
        }
    }
}

impl Drop for Replay {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Says that it is over however the task ends.
struct Ending(Arc<Shared>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.is_under_way.store(false, Relaxed);
    }
}

async fn run(ending: Ending, way: Way, image: oneshot::Receiver<Arc<Image>>) {
    let shared = &*ending.0;
    let fetched = fetch(shared.id, &way.cache, &way.sources, way.deadline);
    let (profile, image) = futures::future::join(fetched, image).await;
    // Nothing is mounted then.
    let Ok(image) = image else { return };
    let usable = profile.and_then(|profile| {
        profile.judge_for(image.id, image.map.block_count())?;
        Ok(profile)
    });
    let trouble = match usable {
        Ok(profile) => follow(shared, &way, &image, profile.blocks).await,
        Err(error) => Some(told(&error)),
    };
    if let Some(trouble) = trouble {
        tracing::warn!(profile = %shared.id, flist = %image.id, trouble, "a profile is not followed");
        let _ = shared.trouble.set(trouble);
    }
}

/// Fetches a profile and judges it for itself.
pub async fn fetch(
    id: BlockId,
    cache: &Cache,
    sources: &Sources,
    deadline: Duration,
) -> Result<Profile, ProfileError> {
    let block = cache.get_object(id, sources, Class::ReadAhead.until(Instant::now() + deadline)).await?;
    Ok(Profile::from_bytes(block.bytes())?)
}

/// Why it stopped before its end.
async fn follow(shared: &Shared, way: &Way, image: &Image, blocks: Vec<u32>) -> Option<String> {
    shared.wanted.store(blocks.len() as u64, Relaxed);
    let mut waiting = VecDeque::from(blocks);
    let mut flights = FuturesUnordered::new();
    let (mut under_way, mut left, mut failures) = (0, MAX_BYTES, 0);
    loop {
        if let Some(block) = waiting.front().copied() {
            let desc = image.map.block(block);
            let len = u64::from(desc.stored_len());
            let room = (way.sources.carries() * 2).clamp(UNDER_WAY_MIN, UNDER_WAY_MAX);
            if flights.is_empty() || (under_way + len <= room && flights.len() < MAX_FLIGHTS) {
                if left < len {
                    return Some(format!("it names more than {MAX_BYTES} bytes"));
                }
                if !way.cache.welcomes(under_way + len, MAX_BYTES - left + len) {
                    return Some("the cache is full".to_owned());
                }
                waiting.pop_front();
                (under_way, left) = (under_way + len, left - len);
                flights.push(async move {
                    let terms = Class::Profile.until(Instant::now() + way.deadline);
                    (len, way.cache.bring(&desc, &way.sources, terms).await)
                });
                continue;
            }
        }
        let (len, brought) = flights.next().await?;
        under_way -= len;
        match brought {
            Ok(()) => {
                failures = 0;
                shared.fetched.fetch_add(1, Relaxed);
            }
            Err(error) => {
                // Who really reads it will be told.
                tracing::debug!(%error, "a block of a profile is not fetched");
                failures += 1;
                if failures >= MAX_FAILURES {
                    return Some(format!("{failures} blocks in a row cannot be had, the last: {error}"));
                }
            }
        }
    }
}

/// An error with its causes.
fn told(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
