//! What is urgent comes first: at the sources of a mount, and when it joins what was not urgent so far.

use std::sync::Arc;
use std::time::Duration;

use g8_cache::{BlockId, Cache, CacheConfig, Class, Codec, FetchError, Origin, Source, Sources, StoredBlock};
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::harness::*;

/// Gives a small block for each number, when it is let; and remembers who was asked for in which order.
struct GatedOrigin {
    asked: Mutex<Vec<usize>>,
    lets: Semaphore,
}

fn bytes(number: usize) -> Vec<u8> {
    number.to_le_bytes().into()
}

fn id(number: usize) -> BlockId {
    BlockId::of(Codec::Raw, &bytes(number))
}

#[async_trait::async_trait]
impl Origin for GatedOrigin {
    fn spec(&self) -> &str {
        "gated:"
    }

    async fn fetch(&self, wanted: &BlockId) -> Result<StoredBlock, FetchError> {
        let number = (0..1000).find(|&number| id(number) == *wanted).unwrap();
        self.asked.lock().push(number);
        self.lets.acquire().await.unwrap().forget();
        Ok(StoredBlock::new(*wanted, bytes(number))?)
    }

    fn keep(&self) -> bool {
        false
    }
}

fn gated() -> (Arc<GatedOrigin>, Sources) {
    let origin = Arc::new(GatedOrigin { asked: Mutex::default(), lets: Semaphore::new(0) });
    let source = Source::new(Arc::clone(&origin) as Arc<dyn Origin>);
    (origin, Sources::new([Arc::new(source)]))
}

/// Lets every task go as far as it gets without another one's doing: the runtime of these tests has one thread.
async fn settle() {
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
}

fn fetch(readers: &mut JoinSet<()>, sources: &Sources, number: usize, class: Class) {
    let sources = sources.clone();
    readers.spawn(async move {
        sources.fetch_verified(id(number), class.until(soon())).await.unwrap();
    });
}

#[tokio::test]
async fn a_full_house_of_read_ahead_leaves_places_for_who_waits() {
    let (origin, sources) = gated();
    let mut readers = JoinSet::new();
    for number in 0..40 {
        fetch(&mut readers, &sources, number, Class::Background);
    }
    settle().await;
    assert_eq!(origin.asked.lock().len(), 8, "a quarter for the background");
    for number in 50..90 {
        fetch(&mut readers, &sources, number, Class::Profile);
    }
    settle().await;
    assert_eq!(origin.asked.lock().len(), 16, "half with a profile");
    for number in 100..140 {
        fetch(&mut readers, &sources, number, Class::ReadAhead);
    }
    settle().await;
    assert_eq!(origin.asked.lock().len(), 24, "three quarters with read-ahead");
    for number in 200..240 {
        fetch(&mut readers, &sources, number, Class::OnDemand);
    }
    settle().await;
    assert_eq!(origin.asked.lock()[24..], (200..208).collect::<Vec<_>>(), "and the rest at once");

    origin.lets.add_permits(160);
    while let Some(reader) = readers.join_next().await {
        reader.unwrap();
    }
    let asked = origin.asked.lock().clone();
    let strictly: Vec<usize> = (208..240).chain(108..140).chain(58..90).chain(8..40).collect();
    assert_eq!(asked[32..], strictly, "strict priority, first come first served within a class");
}

#[tokio::test]
async fn a_reader_that_joins_what_waits_in_a_lower_class_makes_it_urgent() {
    let (origin, sources) = gated();
    let cache = memory_only(MIB);
    let mut readers = JoinSet::new();
    for number in 0..40 {
        fetch(&mut readers, &sources, number, Class::ReadAhead);
    }
    settle().await;
    let get = |class: Class| {
        let (cache, sources) = (cache.clone(), sources.clone());
        async move { cache.get_object(id(500), &sources, class.until(soon())).await.map(|_| ()) }
    };
    let patient = tokio::spawn(get(Class::Background));
    // Its look-up on a worker thread ends, and it waits behind the read-ahead.
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(origin.asked.lock().len(), 24);
    let urgent = tokio::spawn(get(Class::OnDemand));
    while origin.asked.lock().len() == 24 {
        tokio::task::yield_now().await;
    }
    assert_eq!(origin.asked.lock()[24..], [500]);
    origin.lets.add_permits(41);
    urgent.await.unwrap().unwrap();
    patient.await.unwrap().unwrap();
    while let Some(reader) = readers.join_next().await {
        reader.unwrap();
    }
    assert_eq!(origin.asked.lock().len(), 41, "each was asked for once");
}

#[tokio::test]
async fn readers_that_go_away_while_they_wait_leave_every_place_to_others() {
    let (origin, sources) = gated();
    for _ in 0..20 {
        let mut readers = JoinSet::new();
        for number in 0..100 {
            let class = [Class::OnDemand, Class::ReadAhead, Class::Background][number % 3];
            fetch(&mut readers, &sources, number, class);
        }
        settle().await;
        readers.shutdown().await;
    }
    origin.asked.lock().clear();
    let mut readers = JoinSet::new();
    for number in 0..40 {
        fetch(&mut readers, &sources, number, Class::OnDemand);
    }
    settle().await;
    assert_eq!(origin.asked.lock().len(), 32);
}

/// A flight has its own end. Whoever waits for it must not get a time-out that is not its own.
#[tokio::test(start_paused = true)]
async fn the_readers_of_a_flight_that_ends_without_a_block_get_the_next_one() {
    let (origin, sources) = gated();
    let cache = memory_only(MIB);
    let mut crowd = JoinSet::new();
    let hour = std::time::Instant::now() + Duration::from_secs(3600);
    let get = |class: Class| {
        let (cache, sources) = (cache.clone(), sources.clone());
        async move { cache.get_object(id(500), &sources, class.until(hour)).await }
    };
    // No place is free for as long as these are asked for again and again.
    for number in 0..32 {
        let sources = sources.clone();
        crowd.spawn(async move {
            loop {
                sources.fetch_verified(id(number), hour).await.unwrap_err();
            }
        });
    }
    settle().await;
    let first = tokio::spawn(get(Class::Background));
    tokio::time::sleep(Duration::from_secs(59)).await;
    let second = tokio::spawn(get(Class::ReadAhead));
    // The flight is over then, and neither of its readers, who have an hour.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(!first.is_finished() && !second.is_finished());
    assert!(!origin.asked.lock().contains(&500));
    crowd.shutdown().await;
    origin.lets.add_permits(1);
    second.await.unwrap().unwrap();
    first.await.unwrap().unwrap();
}

#[tokio::test]
async fn what_a_profile_brings_takes_only_the_room_that_is_left() {
    let (origin, sources) = gated();
    origin.lets.add_permits(100);
    // A quarter is for stored blocks: four of 8 bytes, each with what it costs to keep one.
    let cache = memory_only(4 * 4 * 168);
    let get = async |number: usize, class: Class| {
        cache.get_object(id(number), &sources, class.until(soon())).await.unwrap();
    };
    for number in 0..3 {
        get(number, Class::OnDemand).await;
    }
    assert!(cache.welcomes(8, 8) && !cache.welcomes(1000, 1000));
    for number in 10..20 {
        get(number, Class::Profile).await;
    }
    assert!(!cache.welcomes(8, 8));
    let before = origin.asked.lock().len();
    for number in [0, 1, 2, 10] {
        get(number, Class::OnDemand).await;
    }
    assert_eq!(
        origin.asked.lock().len(),
        before,
        "all that was wanted is there, and the first of the profile"
    );
    get(11, Class::OnDemand).await;
    assert_eq!(origin.asked.lock().len(), before + 1);
}

/// A disk tier is full from its second day on, and a profile must be of use then too.
#[tokio::test]
async fn in_a_full_disk_tier_a_small_part_is_for_what_nobody_asked_for_yet() {
    const BUDGET: u64 = 16 * MIB;
    let dir = tempfile::tempdir().unwrap();
    let cache = disk_only(dir.path(), BUDGET);
    assert!(cache.welcomes(BUDGET / 2, BUDGET / 2), "it is empty");
    for seed in 0..64 {
        let block = [Block::of(random(seed + 1, 900_000), 65_536)];
        read_all(&cache, &block, &sources([&Arc::new(TestOrigin::good(&block))])).await;
        cache.flush();
        if cache.stats().disk.bytes + MIB > BUDGET {
            break;
        }
    }
    let free = BUDGET - cache.stats().disk.bytes.min(BUDGET);
    assert!(free < MIB, "it was never full: {free} bytes are free");
    let eighth = BUDGET / 8;
    assert!(cache.welcomes(free + 1, eighth), "an eighth of it");
    assert!(!cache.welcomes(free + 1, eighth + 1), "and no more");
    assert!(!cache.welcomes(eighth + free, eighth + free));
}

/// What the disk would not keep is not worth fetching for later, unless the memory has room for it.
#[tokio::test]
async fn a_disk_that_takes_nothing_has_no_room_however_empty_it_is() {
    for memory in [0, 64 * MIB] {
        let dir = tempfile::tempdir().unwrap();
        let config = CacheConfig { free_floor: u64::MAX, ..config(Some(dir.path()), 16 * MIB, memory) };
        let cache = Cache::open(config).unwrap();
        assert_eq!(cache.welcomes(1000, 1000), memory > 0, "{memory} bytes of memory");
    }
}
