//! Live output: records that go to redis streams, many to a round trip. Dropped and counted when redis is behind.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::log::Record;
use crate::redis::Link;
use crate::wire::{STREAM_LENGTH, STREAM_LIFE, State};

/// Records that wait for redis.
const WAITING: usize = 8192;
/// Most records of one round trip.
const BATCH: usize = 256;
/// Most bytes of text that a stream keeps, about, and those of one entry: what is longer is cut.
const STREAM_BYTES: usize = 4 << 20;
const TEXT_MAX: usize = 64 << 10;
/// How long a stream that has not ended stays after its last entry: longer than the longest span of statistics. It must have
/// an end, or redis could not make room.
const LIVE_LIFE: Duration = Duration::from_secs(2 * 3600);
/// Pause after a failure.
const PAUSE: Duration = Duration::from_millis(100);
/// How often the ends of streams are offered to a redis that does not take them: for a minute at least.
const ENDS: usize = 600;

#[derive(Debug)]
enum Item {
    Record { stream: Arc<str>, record: Record },
    End { stream: Arc<str>, state: State },
    Flush { done: oneshot::Sender<()> },
}

/// The sending end, shared.
#[derive(Clone, Debug)]
pub struct Publisher {
    items: mpsc::Sender<Item>,
    dropped: Arc<AtomicU64>,
}

/// The end that writes to redis.
#[derive(Debug)]
pub struct Outlet {
    items: mpsc::Receiver<Item>,
    dropped: Arc<AtomicU64>,
}

/// Both ends.
pub fn channel() -> (Publisher, Outlet) {
    let (sender, items) = mpsc::channel(WAITING);
    let dropped = Arc::new(AtomicU64::new(0));
    (Publisher { items: sender, dropped: dropped.clone() }, Outlet { items, dropped })
}

impl Publisher {
    /// Adds a record to a stream, unless too many wait.
    pub fn publish(&self, stream: &str, record: &Record) {
        let item = Item::Record { stream: stream.into(), record: record.clone() };
        if self.items.try_send(item).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Ends a stream: its last entry, which is offered to redis until it takes it.
    pub async fn end(&self, stream: &str, state: State) {
        // The outlet lives as long as the node; after it nobody reads.
        let _ = self.items.send(Item::End { stream: stream.into(), state }).await;
    }

    /// Waits until all that was published before is written.
    pub async fn flush(&self) {
        let (done, flushed) = oneshot::channel();
        if self.items.send(Item::Flush { done }).await.is_ok() {
            let _ = flushed.await;
        }
    }
}

impl Outlet {
    /// Writes until the senders are gone.
    pub async fn run(mut self, mut link: Link) {
        let mut batch = Vec::with_capacity(BATCH);
        while self.items.recv_many(&mut batch, BATCH).await > 0 {
            let mut flushed = Vec::new();
            for item in batch.extract_if(.., |item| matches!(item, Item::Flush { .. })) {
                flushed.extend(item.done());
            }
            write(&mut link, &mut batch).await;
            // Who waited may have given up.
            for done in flushed {
                let _ = done.send(());
            }
            let lost = self.dropped.swap(0, Ordering::Relaxed);
            if lost > 0 {
                tracing::warn!("redis is behind: {lost} records of live output were dropped");
            }
        }
    }
}

impl Item {
    fn done(self) -> Option<oneshot::Sender<()>> {
        match self {
            Item::Flush { done } => Some(done),
            Item::Record { .. } | Item::End { .. } => None,
        }
    }
}

/// Writes a batch, and leaves it empty. Records that were on their way when redis went are lost: a stream is not a result.
/// Ends are not, as readers wait for them.
async fn write(link: &mut Link, batch: &mut Vec<Item>) {
    for failures in 0..ENDS {
        if batch.is_empty() {
            return;
        }
        let Err(e) = link.query::<()>(&pipeline(batch)).await else {
            batch.clear();
            return;
        };
        if failures == 0 {
            tracing::warn!("live output was lost: {e}");
        }
        batch.retain(|item| matches!(item, Item::End { .. }));
        // A key that somebody made something else of fails again, and all others were written.
        if e.code() == Some("WRONGTYPE") {
            break;
        }
        tokio::time::sleep(PAUSE).await;
    }
    batch.clear();
}

fn pipeline(batch: &[Item]) -> redis::Pipeline {
    let mut pipeline = redis::pipe();
    let mut live = BTreeSet::new();
    for item in batch {
        match item {
            Item::Record { stream, record } => {
                let text = &record.text[..record.text.floor_char_boundary(TEXT_MAX)];
                // As if all were as long as this one: what five loud jobs say must not be all that redis can keep.
                let length = (STREAM_BYTES / text.len().max(1)).min(STREAM_LENGTH);
                pipeline.cmd("XADD").arg(&**stream).arg("MAXLEN").arg("~").arg(length).arg("*");
                pipeline.arg("level").arg(record.level).arg("time").arg(record.time);
                pipeline.arg("source").arg(&*record.source).arg("text").arg(text).ignore();
                live.insert(stream);
            }
            Item::End { stream, state } => {
                pipeline.cmd("XADD").arg(&**stream).arg("*").arg("end").arg(state.name()).ignore();
                pipeline.cmd("EXPIRE").arg(&**stream).arg(STREAM_LIFE.as_secs()).ignore();
                live.remove(stream);
            }
            Item::Flush { .. } => {}
        }
    }
    for stream in live {
        pipeline.cmd("EXPIRE").arg(&**stream).arg(LIVE_LIFE.as_secs()).ignore();
    }
    pipeline
}
