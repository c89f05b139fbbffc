//! Sources that fail at the n-th call, for every n: right bytes or an error in time, never wrong bytes, and nothing of
//! a failure stays.
//!
//! The clock is tokio's paused one: it jumps to the next timer when everything waits, so a stall costs no real time.
//! Deadlines are instants of the real clock, so [`Clock`] adds to them what was jumped over.

#[path = "support/lab.rs"]
#[allow(dead_code, reason = "each test file uses its part")]
mod lab;

use std::future::pending;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use g8_cache::{BlockId, Cache, FetchError, MAX_STORED, Origin, Sources, StoredBlock};
use g8_fs::filesystem::Filesystem;
use g8_fs::image::Image;
use g8_fs::pack::PackOptions;

use lab::{MapOrigin, Packed};

/// How long an operation may take.
const DEADLINE: Duration = Duration::from_secs(2);
/// After this the cache has given up on a source that does not answer (`TRY_LIMIT` of `g8_cache::Source`).
const GIVEN_UP: Duration = Duration::from_secs(11);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    Fail,
    Vanish,
    Lie,
    Truncate,
    Empty,
    Oversize,
    OtherBlock,
    Stall,
}

const FAULTS: [Fault; 8] = [
    Fault::Fail,
    Fault::Vanish,
    Fault::Lie,
    Fault::Truncate,
    Fault::Empty,
    Fault::Oversize,
    Fault::OtherBlock,
    Fault::Stall,
];

impl Fault {
    /// A source is not asked again for what it lied about.
    fn is_lie(self) -> bool {
        match self {
            Fault::Fail | Fault::Vanish | Fault::Stall => false,
            Fault::Lie | Fault::Truncate | Fault::Empty | Fault::Oversize | Fault::OtherBlock => true,
        }
    }
}

/// Gives the objects of an flist, except at the calls that are to go wrong.
struct FaultOrigin {
    packed: &'static Packed,
    calls: AtomicUsize,
    wrong: Box<dyn Fn(usize) -> Option<Fault> + Send + Sync>,
}

impl FaultOrigin {
    fn new(wrong: impl Fn(usize) -> Option<Fault> + Send + Sync + 'static) -> Arc<FaultOrigin> {
        Arc::new(FaultOrigin { packed: &PACKED, calls: AtomicUsize::new(0), wrong: Box::new(wrong) })
    }
}

#[async_trait]
impl Origin for FaultOrigin {
    fn spec(&self) -> &str {
        "fault:"
    }

    async fn fetch(&self, id: &BlockId) -> Result<StoredBlock, FetchError> {
        let call = self.calls.fetch_add(1, SeqCst) + 1;
        let right = self.packed.objects.get(id).ok_or(FetchError::NotFound)?.clone();
        let bytes = match (self.wrong)(call) {
            None => right,
            Some(Fault::Fail) => return Err(FetchError::unavailable("connection reset")),
            Some(Fault::Vanish) => return Err(FetchError::NotFound),
            Some(Fault::Lie) => right.iter().map(|byte| byte ^ 1).collect(),
            Some(Fault::Truncate) => right.slice(..right.len() - 1),
            Some(Fault::Empty) => Bytes::new(),
            Some(Fault::Oversize) => vec![0; MAX_STORED + 1].into(),
            Some(Fault::OtherBlock) => {
                let (other, bytes) = self.packed.objects.iter().find(|(other, _)| *other != id).unwrap();
                return Ok(StoredBlock::new(*other, bytes.clone())?);
            }
            Some(Fault::Stall) => pending().await,
        };
        Ok(StoredBlock::new(*id, bytes)?)
    }

    fn keep(&self) -> bool {
        true
    }
}

static PACKED: LazyLock<Packed> = LazyLock::new(|| {
    let mut files = lab::sample();
    files.retain(|path, _| !path.starts_with("tiny/"));
    lab::pack_files(files, &PackOptions { frame_len: 65_536, threads: 2, ..PackOptions::default() })
});

fn good() -> Arc<dyn Origin> {
    Arc::new(MapOrigin(PACKED.objects.clone()))
}

/// Runs on a clock that jumps.
fn timeless<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.unwrap().block_on(work)
}

/// The jumping clock, as the instants that deadlines are made of.
struct Clock {
    real: Instant,
    jumping: tokio::time::Instant,
}

impl Clock {
    fn start() -> Clock {
        Clock { real: Instant::now(), jumping: tokio::time::Instant::now() }
    }

    fn after(&self, wait: Duration) -> Instant {
        self.real + self.jumping.elapsed() + wait
    }

    /// Runs an operation that has [`DEADLINE`] to end.
    async fn timed<T>(&self, what: &str, work: impl Future<Output = T>) -> T {
        let begun = self.jumping.elapsed();
        let outcome = work.await;
        let took = self.jumping.elapsed() - begun;
        assert!(took <= DEADLINE + Duration::from_millis(20), "{what} took {took:?}");
        outcome
    }
}

/// Opens the image and reads every file; returns how many operations failed. Wrong bytes are a panic.
async fn read_everything(clock: &Clock, cache: &Cache, sources: &Sources) -> usize {
    let opening = Image::open(PACKED.id, cache, sources, None, clock.after(DEADLINE));
    let Ok(image) = clock.timed("opening", opening).await else { return 1 };
    let image = Arc::new(image);
    let mut failed = 0;
    for (path, contents) in &PACKED.files {
        let mut bytes = Vec::new();
        while bytes.len() < contents.len() {
            let deadline = clock.after(DEADLINE).saturating_duration_since(Instant::now());
            let fs = Filesystem::new(image.clone(), cache.clone(), sources.clone(), deadline);
            let nid = lab::find(&fs, path).nid;
            let reading = lab::read(&fs, nid, bytes.len() as u64, 200_000);
            match clock.timed(path, reading).await {
                Ok(part) => bytes.extend(part),
                Err(_) => break,
            }
        }
        assert!(bytes == contents[..bytes.len()], "{path} has wrong bytes");
        failed += usize::from(bytes.len() < contents.len());
    }
    failed
}

/// The calls of a run in which nothing goes wrong.
fn calls_of_a_good_run() -> usize {
    let origin = FaultOrigin::new(|_| None);
    timeless(async {
        let sources = lab::sources([origin.clone() as Arc<dyn Origin>]);
        assert_eq!(read_everything(&Clock::start(), &lab::memory(), &sources).await, 0);
    });
    let calls = origin.calls.load(SeqCst);
    assert_eq!(calls, PACKED.objects.len() - 1, "every object but the shard is asked for once");
    calls
}

#[test]
fn a_fault_at_any_call_is_an_error_in_time_and_nothing_stays_of_it() {
    for n in 1..=calls_of_a_good_run() {
        for fault in FAULTS {
            timeless(async {
                let clock = Clock::start();
                let cache = lab::memory();
                let origin = FaultOrigin::new(move |call| (call == n).then_some(fault));
                let sources = lab::sources([origin as Arc<dyn Origin>]);
                let failed = read_everything(&clock, &cache, &sources).await;
                assert!(failed > 0, "{fault:?} at call {n} was not noticed");
                if fault == Fault::Stall {
                    tokio::time::sleep(GIVEN_UP).await;
                }
                let again = read_everything(&clock, &cache, &sources).await;
                assert_eq!(again > 0, fault.is_lie(), "{fault:?} at call {n}: {again} failures afterwards");
                // The lie is remembered of the source that told it, not of the block.
                let fresh = lab::sources([good()]);
                let later = read_everything(&clock, &cache, &fresh).await;
                assert_eq!(later, 0, "{fault:?} at call {n} was remembered");
            });
        }
    }
}

#[test]
fn a_second_good_source_heals_a_fault_at_any_call() {
    for n in 1..=calls_of_a_good_run() {
        for fault in FAULTS {
            timeless(async {
                let origin = FaultOrigin::new(move |call| (call == n).then_some(fault));
                let sources = lab::sources([origin as Arc<dyn Origin>, good()]);
                let failed = read_everything(&Clock::start(), &lab::memory(), &sources).await;
                assert_eq!(failed, 0, "{fault:?} at call {n} was not healed");
            });
        }
    }
}

#[test]
fn a_good_source_heals_any_number_of_bad_ones_before_it() {
    for fault in FAULTS {
        timeless(async {
            let bad = || FaultOrigin::new(move |_| Some(fault)) as Arc<dyn Origin>;
            let sources = lab::sources([bad(), bad(), good()]);
            let (clock, cache) = (Clock::start(), lab::memory());
            // Two sources that stall cost a second of patience each, at every object.
            let patient = Duration::from_secs(50);
            let fs = lab::open(PACKED.id, &cache, &sources, patient).await.unwrap();
            let (path, contents) = PACKED.files.first_key_value().unwrap();
            assert!(lab::read_all(&fs, path).await.unwrap() == *contents, "{fault:?}: {path}");
            let took = clock.jumping.elapsed();
            assert!(took < Duration::from_secs(10), "{fault:?}: {took:?}");
        });
    }
}

#[test]
fn a_source_that_is_always_bad_gives_errors_and_no_hang() {
    for fault in FAULTS {
        timeless(async {
            let clock = Clock::start();
            let origin = FaultOrigin::new(move |_| Some(fault));
            let sources = lab::sources([origin as Arc<dyn Origin>]);
            let cache = lab::memory();
            for _ in 0..3 {
                assert_eq!(
                    read_everything(&clock, &cache, &sources).await,
                    1,
                    "{fault:?}: it cannot be opened"
                );
            }
        });
    }
}

/// Faults of every kind at once, on two sources that never both fail for good.
#[test]
fn a_storm_of_faults_never_gives_wrong_bytes() {
    for seed in 0..60 {
        timeless(async {
            let storm = |salt: usize| {
                FaultOrigin::new(move |call| {
                    let draw = blake3::hash(&[seed, call, salt].map(|n| n as u8)).as_bytes()[0];
                    FAULTS.get(usize::from(draw) % 24).copied()
                }) as Arc<dyn Origin>
            };
            let clock = Clock::start();
            let cache = lab::memory();
            let sources = lab::sources([storm(1), storm(2)]);
            for _ in 0..3 {
                read_everything(&clock, &cache, &sources).await;
            }
            let healed = read_everything(&clock, &cache, &lab::sources([storm(3), good()])).await;
            assert_eq!(healed, 0, "seed {seed}");
        });
    }
}
