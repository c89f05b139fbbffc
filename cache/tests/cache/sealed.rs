//! Blocks of a source on this machine that have left the memory: one frame is read and proven alone, or all of the block.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Instant;

use bytes::Bytes;
use g8_cache::{BlockDesc, BlockId, Cache, FetchError, Origin, Source, Sources, StoredBlock};

use crate::harness::*;

/// Gives whole blocks as its inner origin does, and parts of them except when that is to go wrong.
struct RangeOrigin {
    whole: TestOrigin,
    reads: AtomicUsize,
    wrong: Box<dyn Fn(usize) -> Option<Fault> + Send + Sync>,
}

#[async_trait::async_trait]
impl Origin for RangeOrigin {
    fn spec(&self) -> &str {
        "range:"
    }

    async fn fetch(&self, id: &BlockId) -> Result<StoredBlock, FetchError> {
        self.whole.fetch(id).await
    }

    fn reads_ranges(&self) -> bool {
        true
    }

    async fn read_range(&self, id: &BlockId, range: Range<u64>) -> Result<Bytes, FetchError> {
        let range = range.start as usize..range.end as usize;
        let block = self.whole.held(id)?;
        let right = block.slice(range.clone());
        Ok(match (self.wrong)(self.reads.fetch_add(1, SeqCst)) {
            None => right,
            Some(Fault::Fail) => return Err(FetchError::unavailable("connection reset")),
            Some(Fault::Busy) => return Err(FetchError::Busy(std::time::Duration::ZERO)),
            Some(Fault::Unfit) => return Err(FetchError::unfit("answers with HTML")),
            Some(Fault::Vanish) => return Err(FetchError::NotFound),
            Some(Fault::Lie) => right.iter().map(|byte| byte ^ 1).collect(),
            Some(Fault::Truncate) => right.slice(1..),
            Some(Fault::Oversize) => block,
            Some(Fault::OtherBlock) => vec![7; right.len()].into(),
            Some(Fault::Stall) => std::future::pending().await,
            Some(Fault::Panic) => unreachable!("a panic is a bug of ours, and the reader's to show"),
        })
    }

    fn keep(&self) -> bool {
        false
    }
}

fn ranges(
    blocks: &[Block],
    wrong: impl Fn(usize) -> Option<Fault> + Send + Sync + 'static,
) -> (Arc<RangeOrigin>, Sources) {
    let whole = TestOrigin::good(blocks);
    let origin = Arc::new(RangeOrigin { whole, reads: AtomicUsize::new(0), wrong: Box::new(wrong) });
    let source = Source::new(Arc::clone(&origin) as Arc<dyn Origin>);
    (origin, Sources::new([Arc::new(source)]))
}

/// Reads all blocks, most of which leave the memory again, until none is read whole any more: nobody waits for seals.
async fn until_sealed(cache: &Cache, blocks: &[Block], origin: &RangeOrigin, sources: &Sources) {
    let end = soon();
    loop {
        let before = origin.whole.calls();
        read_all(cache, blocks, sources).await;
        if origin.whole.calls() == before {
            return;
        }
        assert!(Instant::now() < end, "never sealed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn blocks_that_left_the_memory_are_read_frame_by_frame() {
    let blocks = blocks(60, 300_000);
    let (origin, sources) = ranges(&blocks, |_| None);
    let cache = memory_only(4 * MIB);
    read_all(&cache, &blocks, &sources).await;
    assert_eq!((origin.whole.calls(), origin.reads.load(SeqCst)), (60, 0), "the first pass seals nothing");
    until_sealed(&cache, &blocks, &origin, &sources).await;
    let (calls, reads) = (origin.whole.calls(), origin.reads.load(SeqCst));
    for _ in 0..2 {
        read_all(&cache, &blocks, &sources).await;
    }
    assert_eq!(origin.whole.calls(), calls, "no block is read whole again");
    assert!(origin.reads.load(SeqCst) > reads + 400);
    assert!(cache.stats().memory.bytes <= 4 * MIB);
    cache.clear();
    read_all(&cache, &blocks[..1], &sources).await;
    assert_eq!(origin.whole.calls(), calls + 1, "an emptied cache knows no seals");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_that_goes_wrong_costs_the_whole_block_and_nothing_else() {
    for fault in FAULTS.into_iter().filter(|fault| *fault != Fault::Panic) {
        let blocks = blocks(10, 300_000);
        let wrong = Arc::new(AtomicBool::new(false));
        let (origin, sources) = ranges(&blocks, {
            let wrong = Arc::clone(&wrong);
            // A stall makes the reader wait, the others do not.
            let every = if fault == Fault::Stall { 20 } else { 3 };
            move |read| (wrong.load(SeqCst) && read % every == 1).then_some(fault)
        });
        let cache = memory_only(256 * 1024);
        until_sealed(&cache, &blocks, &origin, &sources).await;
        let calls = origin.whole.calls();
        wrong.store(true, SeqCst);
        for _ in 0..2 {
            read_all(&cache, &blocks, &sources).await;
        }
        assert!(origin.whole.calls() > calls, "{fault:?}");
        let stats = &sources.snapshot()[0];
        assert_eq!((stats.wrong, stats.errors), (0, 0), "{fault:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seal_is_of_no_use_to_an_flist_that_cuts_the_block_differently() {
    let block = Block::of(random(3, 300_000), 65_536);
    let frames: Vec<u32> = block.plain.chunks(50_000).map(|frame| frame.len() as u32).collect();
    let other = BlockDesc::new(block.encoded.id, 300_000, 50_000, &frames).unwrap();
    let (origin, sources) = ranges(std::slice::from_ref(&block), |_| None);
    // Room for the seals and nothing else.
    let cache = memory_only(64 * 1024);
    until_sealed(&cache, std::slice::from_ref(&block), &origin, &sources).await;
    let (calls, reads) = (origin.whole.calls(), origin.reads.load(SeqCst));
    let (frame, _) = cache.get(&other, 5, &sources, soon()).await.unwrap();
    assert!(frame[..] == block.plain[250_000..]);
    assert_eq!((origin.whole.calls(), origin.reads.load(SeqCst)), (calls + 1, reads));
}
