//! Sources that are told what will be fetched, and blocks that come along with others.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use g8_cache::{BlockId, Expected, FetchError, Origin, Source, Sources, StoredBlock};
use tokio::time::Instant as Clock;

use crate::harness::*;

/// Gives its first block after a while, and all others along with it.
struct Foresighted {
    inner: TestOrigin,
    spec: &'static str,
    first: BlockId,
    told: AtomicUsize,
    can: bool,
}

impl Foresighted {
    fn of(spec: &'static str, blocks: &[Block], can: bool) -> Arc<Foresighted> {
        let mut inner = TestOrigin::good(blocks);
        inner.remote = true;
        let first = blocks[0].encoded.id;
        Arc::new(Foresighted { inner, spec, first, told: AtomicUsize::new(0), can })
    }

    fn source(self: &Arc<Self>) -> Arc<Source> {
        Arc::new(Source::new(Arc::clone(self) as Arc<dyn Origin>))
    }
}

#[async_trait::async_trait]
impl Origin for Foresighted {
    fn spec(&self) -> &str {
        self.spec
    }

    async fn fetch(&self, id: &BlockId) -> Result<StoredBlock, FetchError> {
        let block = self.inner.fetch(id).await?;
        if *id == self.first {
            tokio::time::sleep(Duration::from_millis(50)).await;
            return Ok(block);
        }
        Ok(block.along())
    }

    fn expect(&self, _: &BlockId) -> Option<Expected> {
        self.told.fetch_add(1, SeqCst);
        self.can.then(|| Box::new(()) as Expected)
    }

    fn keep(&self) -> bool {
        true
    }

    fn is_remote(&self) -> bool {
        true
    }
}

fn in_a_minute() -> Instant {
    Clock::now().into_std() + Duration::from_secs(60)
}

#[tokio::test(start_paused = true)]
async fn the_first_remote_source_that_can_use_it_is_told_what_will_be_fetched_and_no_other() {
    let blocks = blocks(1, 1000);
    let local = Arc::new(Source::new(Arc::new(TestOrigin::good(&blocks)) as Arc<dyn Origin>));
    let (cannot, can, too) = (
        Foresighted::of("cannot:", &blocks, false),
        Foresighted::of("can:", &blocks, true),
        Foresighted::of("too:", &blocks, true),
    );
    let sources = Sources::new([local, cannot.source(), can.source(), too.source()]);
    assert!(sources.expect(&blocks[0].encoded.id).is_some());
    let told = [&cannot, &can, &too].map(|origin| origin.told.load(SeqCst));
    assert_eq!(told, [1, 1, 0]);
}

/// Else it would seem to be next door, and be given up after 50 ms.
#[tokio::test(start_paused = true)]
async fn what_came_along_does_not_make_a_source_look_near() {
    let blocks = blocks(9, 1000);
    let sources = Sources::new([Foresighted::of("far:", &blocks, true).source()]);
    for block in &blocks {
        sources.fetch_verified(block.encoded.id, in_a_minute()).await.unwrap();
    }
    assert!(sources.carries() > 0, "it is 50 ms away");
    let stats = &sources.snapshot()[0];
    assert_eq!((stats.requests, stats.bytes > 0), (9, true));
}
