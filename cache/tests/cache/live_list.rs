//! A list of sources that changes while it is read: what is added helps also those that wait, what is removed is left alone.

use std::sync::Arc;
use std::time::{Duration, Instant};

use g8_cache::{AddError, GetError, MAX_SOURCES, RemoveError, Source, Sources};
use tokio::time::Instant as Clock;

use crate::harness::*;

fn in_a_minute() -> Instant {
    Clock::now().into_std() + Duration::from_secs(60)
}

fn named(spec: &str, blocks: &[Block], wrong: Option<Fault>) -> Arc<TestOrigin> {
    let mut origin = TestOrigin::faulty(blocks, move |_| wrong);
    (origin.spec, origin.remote) = (spec.into(), true);
    Arc::new(origin)
}

fn source(origin: &Arc<TestOrigin>) -> Arc<Source> {
    Arc::new(Source::new(Arc::clone(origin) as _))
}

fn specs(sources: &Sources) -> Vec<String> {
    sources.list().iter().map(|source| source.spec().to_string()).collect()
}

/// A read that waits for `sources`, at work for five seconds already.
async fn waiting(
    sources: &Sources,
    blocks: &[Block],
) -> tokio::task::JoinHandle<Result<g8_cache::VerifiedBlock, GetError>> {
    let (list, id, deadline) = (sources.clone(), blocks[0].encoded.id, in_a_minute());
    let read = tokio::spawn(async move { list.fetch_verified(id, deadline).await });
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(!read.is_finished());
    read
}

#[tokio::test(start_paused = true)]
async fn a_read_that_waits_for_a_dead_source_gets_its_block_from_one_that_is_added() {
    let blocks = blocks(1, 100_000);
    for fault in [Fault::Fail, Fault::Stall, Fault::Busy] {
        let dead = named("dead:", &blocks, Some(fault));
        let list = sources([&dead]);
        let read = waiting(&list, &blocks).await;
        let began = Clock::now();
        list.add(source(&named("good:", &blocks, None))).unwrap();
        read.await.unwrap().unwrap();
        assert!(began.elapsed() < Duration::from_millis(1100), "{fault:?}: {:?}", began.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_is_added_and_lacks_the_block_leaves_the_read_waiting() {
    let blocks = blocks(1, 100_000);
    let dead = named("dead:", &blocks, Some(Fault::Fail));
    let list = sources([&dead]);
    let read = waiting(&list, &blocks).await;
    let without = named("without:", &blocks, Some(Fault::Vanish));
    list.add(source(&without)).unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(!read.is_finished());
    assert_eq!(without.calls(), 1, "an answer stays an answer");
    list.add(source(&named("good:", &blocks, None))).unwrap();
    read.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_read_ends_when_the_only_source_it_waits_for_is_removed() {
    let blocks = blocks(1, 100_000);
    let (dead, without) =
        (named("dead:", &blocks, Some(Fault::Fail)), named("without:", &blocks, Some(Fault::Vanish)));
    let list = sources([&without, &dead]);
    let read = waiting(&list, &blocks).await;
    let calls = dead.calls();
    let began = Clock::now();
    list.remove("dead:").unwrap();
    let error = read.await.unwrap().unwrap_err();
    assert!(began.elapsed() < Duration::from_millis(100), "{:?}", began.elapsed());
    assert!(matches!(error, GetError::Unavailable { .. }), "{error}");
    let told = error.to_string();
    assert!(told.contains("dead: is unavailable") && told.contains("without: does not have it"), "{told}");
    assert_eq!(dead.calls(), calls, "what is removed is asked no more");
}

#[tokio::test(start_paused = true)]
async fn a_list_is_bounded_has_no_doubles_and_keeps_its_order() {
    let list = Sources::new([]);
    let named = |spec: &str| source(&named(spec, &[], None));
    for index in 0..MAX_SOURCES {
        list.add(named(&format!("test:{index}"))).unwrap();
    }
    assert_eq!(list.add(named("test:3")).unwrap_err(), AddError::Present);
    assert_eq!(list.add(named("test:more")).unwrap_err(), AddError::Full);
    assert_eq!(list.remove("test:more").unwrap_err(), RemoveError::Absent);
    for index in 1..MAX_SOURCES {
        list.remove(&format!("test:{index}")).unwrap();
    }
    assert_eq!(list.remove("test:0").unwrap_err(), RemoveError::Last);
    list.add(named("test:new")).unwrap();
    assert_eq!(specs(&list), ["test:0", "test:new"]);
    list.remove("test:0").unwrap();
    list.remove_even_last("test:new").unwrap();
    assert!(list.snapshot().is_empty());
    let id = blocks(1, 1000)[0].encoded.id;
    let error = list.fetch_verified(id, in_a_minute()).await.unwrap_err();
    assert!(matches!(error, GetError::NotFound { .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn readers_of_a_cache_share_a_flight_over_a_change_of_the_list() {
    let blocks = blocks(1, 100_000);
    let dead = named("dead:", &blocks, Some(Fault::Fail));
    let list = sources([&dead]);
    let cache = memory_only(4 * MIB);
    let read = async || {
        let deadline = in_a_minute();
        cache.get(&blocks[0].encoded.desc(), 0, &list, deadline).await.map(|(frame, _)| frame.into_bytes())
    };
    let good = named("good:", &blocks, None);
    let change = async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        list.add(source(&good)).unwrap();
        list.remove("dead:").unwrap();
    };
    let later = async {
        tokio::time::sleep(Duration::from_secs(4)).await;
        read().await
    };
    let (one, (), two) = tokio::join!(read(), change, later);
    assert_eq!(one.unwrap(), two.unwrap());
    assert_eq!(good.calls(), 1);
}
