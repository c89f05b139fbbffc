//! Sources behind a network: what may pass is waited for, who fails is asked later, who lies is left alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use g8_cache::{BlockId, FetchError, GetError, Origin, Source, Sources, StoredBlock};
use tokio::time::Instant as Clock;

use crate::harness::*;

fn in_a_minute() -> Instant {
    Clock::now().into_std() + Duration::from_secs(60)
}

fn remote(
    blocks: &[Block],
    wrong: impl Fn(usize) -> Option<Fault> + Send + Sync + 'static,
) -> Arc<TestOrigin> {
    let mut origin = TestOrigin::faulty(blocks, wrong);
    origin.remote = true;
    Arc::new(origin)
}

#[tokio::test(start_paused = true)]
async fn a_remote_source_that_fails_is_asked_again_until_it_works() {
    let blocks = blocks(1, 100_000);
    let id = blocks[0].encoded.id;
    let flaky = remote(&blocks, |call| (call < 4).then_some(Fault::Fail));
    sources([&flaky]).fetch_verified(id, in_a_minute()).await.unwrap();
    assert_eq!(flaky.calls(), 5);
    // A folder on this machine does not come back by itself.
    let local = Arc::new(TestOrigin::faulty(&blocks, |call| (call < 4).then_some(Fault::Fail)));
    let error = sources([&local]).fetch_verified(id, in_a_minute()).await.unwrap_err();
    assert!(matches!(error, GetError::Unavailable { .. }), "{error}");
    assert_eq!(local.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn it_is_asked_more_and_more_seldom_and_the_deadline_ends_it() {
    let blocks = blocks(1, 100_000);
    let dead = remote(&blocks, |_| Some(Fault::Fail));
    let began = Clock::now();
    let error = sources([&dead]).fetch_verified(blocks[0].encoded.id, in_a_minute()).await.unwrap_err();
    assert!(began.elapsed() < Duration::from_secs(61), "{:?}", began.elapsed());
    assert!(matches!(error, GetError::TimedOut { .. }), "{error}");
    assert!(error.to_string().contains("test: is unavailable: connection reset"), "{error}");
    assert!((34..64).contains(&dead.calls()), "{} tries in a minute", dead.calls());
}

#[tokio::test(start_paused = true)]
async fn answers_are_answers() {
    let blocks = blocks(1, 100_000);
    for fault in
        [Fault::Vanish, Fault::Lie, Fault::Truncate, Fault::Oversize, Fault::OtherBlock, Fault::Unfit]
    {
        let origin = remote(&blocks, move |_| Some(fault));
        let began = Clock::now();
        sources([&origin]).fetch_verified(blocks[0].encoded.id, in_a_minute()).await.unwrap_err();
        assert_eq!((origin.calls(), began.elapsed()), (1, Duration::ZERO), "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn only_the_one_that_failed_is_asked_again() {
    let blocks = blocks(1, 100_000);
    let without = remote(&blocks, |_| Some(Fault::Vanish));
    let flaky = remote(&blocks, |call| (call < 3).then_some(Fault::Fail));
    sources([&without, &flaky]).fetch_verified(blocks[0].encoded.id, in_a_minute()).await.unwrap();
    assert_eq!((without.calls(), flaky.calls()), (1, 4));
}

/// Says when it was asked, and asks for three seconds of peace the first time.
struct Busy {
    inner: Arc<TestOrigin>,
    calls: AtomicUsize,
    second: parking_lot::Mutex<Option<Clock>>,
}

#[async_trait::async_trait]
impl Origin for Busy {
    fn spec(&self) -> &str {
        "busy:"
    }

    async fn fetch(&self, id: &BlockId) -> Result<StoredBlock, FetchError> {
        if self.calls.fetch_add(1, SeqCst) == 0 {
            return Err(FetchError::Busy(Duration::from_secs(3)));
        }
        self.second.lock().get_or_insert_with(Clock::now);
        self.inner.fetch(id).await
    }

    fn keep(&self) -> bool {
        true
    }

    fn is_remote(&self) -> bool {
        true
    }
}

#[tokio::test(start_paused = true)]
async fn a_busy_source_is_left_in_peace_as_long_as_it_asked() {
    let blocks = blocks(3, 100_000);
    let good = Arc::new(TestOrigin::good(&blocks));
    let busy = Arc::new(Busy { inner: good, calls: AtomicUsize::new(0), second: None.into() });
    let sources = Sources::new([Arc::new(Source::new(Arc::clone(&busy) as Arc<dyn Origin>))]);
    let began = Clock::now();
    let fetches = blocks.iter().map(|block| sources.fetch_verified(block.encoded.id, in_a_minute()));
    for outcome in futures::future::join_all(fetches).await {
        outcome.unwrap();
    }
    let second = busy.second.lock().expect("it was asked again");
    assert!(second - began >= Duration::from_secs(3), "asked again after {:?}", second - began);
    assert_eq!(busy.calls.load(SeqCst), 4, "nobody else asked meanwhile");
}

#[tokio::test(start_paused = true)]
async fn who_failed_five_times_is_asked_after_the_others_until_it_may_have_recovered() {
    let blocks = blocks(1, 100_000);
    let (dead, good) = (remote(&blocks, |_| Some(Fault::Fail)), remote(&blocks, |_| None));
    let sources = sources([&dead, &good]);
    for _ in 0..20 {
        sources.fetch_verified(blocks[0].encoded.id, in_a_minute()).await.unwrap();
    }
    assert_eq!((dead.calls(), good.calls()), (5, 20));
    tokio::time::advance(Duration::from_millis(1001)).await;
    for _ in 0..20 {
        sources.fetch_verified(blocks[0].encoded.id, in_a_minute()).await.unwrap();
    }
    assert_eq!(dead.calls(), 6, "one try after the rest");
    assert_eq!(sources.snapshot()[0].trouble.as_deref(), Some("is unavailable: connection reset"));
    assert_eq!(sources.snapshot()[1].trouble, None);
}

#[tokio::test(start_paused = true)]
async fn a_stalled_source_costs_a_few_reads_its_patience_and_then_nobody() {
    let blocks = blocks(1, 100_000);
    let (stalled, good) = (remote(&blocks, |_| Some(Fault::Stall)), remote(&blocks, |_| None));
    let sources = sources([&stalled, &good]);
    let began = Clock::now();
    for _ in 0..200 {
        sources.fetch_verified(blocks[0].encoded.id, in_a_minute()).await.unwrap();
    }
    assert!(began.elapsed() < Duration::from_secs(7), "{:?}", began.elapsed());
    assert!(stalled.calls() < 8, "{}", stalled.calls());
}

#[tokio::test(start_paused = true)]
async fn sources_that_stall_do_not_hide_one_that_works_however_many_they_are() {
    let blocks = blocks(1, 100_000);
    let stalled = || remote(&blocks, |_| Some(Fault::Stall));
    let good = remote(&blocks, |_| None);
    let began = Clock::now();
    let many = sources([&stalled(), &stalled(), &stalled(), &stalled(), &good]);
    many.fetch_verified(blocks[0].encoded.id, in_a_minute()).await.unwrap();
    // Three have a second each, the fourth is asked two seconds after that, and the last one another three later.
    assert_eq!(began.elapsed().as_secs(), 8);
    assert_eq!(good.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn who_lies_about_three_blocks_is_set_aside_for_ten_minutes_unless_it_is_the_last() {
    let blocks = blocks(8, 60_000);
    let fetch_all = async |sources: &Sources| {
        for block in &blocks {
            sources.fetch_verified(block.encoded.id, in_a_minute()).await.unwrap();
        }
    };
    let (liar, good) = (remote(&blocks, |_| Some(Fault::Lie)), remote(&blocks, |_| None));
    let both = sources([&liar, &good]);
    fetch_all(&both).await;
    assert_eq!((liar.calls(), both.snapshot()[0].wrong), (3, 3));
    tokio::time::advance(Duration::from_secs(601)).await;
    fetch_all(&both).await;
    assert_eq!(liar.calls(), 6);

    // What nobody else has is an error that names the one who was not asked.
    let without = remote(&blocks, |_| Some(Fault::Vanish));
    let liar = remote(&blocks, |_| Some(Fault::Lie));
    let none = sources([&liar, &without]);
    for block in &blocks {
        let error = none.fetch_verified(block.encoded.id, in_a_minute()).await.unwrap_err();
        assert!(matches!(error, GetError::Wrong { .. }), "{error}");
    }
    assert_eq!(liar.calls(), 3);

    let liar = remote(&blocks, |call| (call < 5).then_some(Fault::Lie));
    let alone = sources([&liar]);
    for block in &blocks[..5] {
        alone.fetch_verified(block.encoded.id, in_a_minute()).await.unwrap_err();
    }
    for block in &blocks[5..] {
        alone.fetch_verified(block.encoded.id, in_a_minute()).await.unwrap();
    }
    assert_eq!(liar.calls(), 8);
}

/// Gives one block and fails for all others.
struct Partly(Arc<TestOrigin>, BlockId);

#[async_trait::async_trait]
impl Origin for Partly {
    fn spec(&self) -> &str {
        "partly:"
    }

    async fn fetch(&self, id: &BlockId) -> Result<StoredBlock, FetchError> {
        if *id == self.1 { self.0.fetch(id).await } else { Err(FetchError::unavailable("reset")) }
    }

    fn keep(&self) -> bool {
        true
    }

    fn is_remote(&self) -> bool {
        true
    }
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_failing_source_holds_up_nobody() {
    let blocks = blocks(60, 20_000);
    let id = blocks[0].encoded.id;
    let origin: Arc<dyn Origin> = Arc::new(Partly(Arc::new(TestOrigin::good(&blocks)), id));
    let sources = Sources::new([Arc::new(Source::new(origin))]);
    let waiting: Vec<_> = blocks[1..]
        .iter()
        .map(|block| (sources.clone(), block.encoded.id))
        .map(|(sources, id)| tokio::spawn(async move { sources.fetch_verified(id, in_a_minute()).await }))
        .collect();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let began = Clock::now();
    sources.fetch_verified(id, in_a_minute()).await.unwrap();
    assert!(began.elapsed() < Duration::from_millis(100), "{:?}", began.elapsed());
    waiting.iter().for_each(|task| task.abort());
}
