//! Live output: records that go to redis streams, many to a round trip. Dropped and counted when redis is behind.

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

    /// Ends a stream: its last entry, which is never dropped.
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
            let mut pipeline = redis::pipe();
            let mut flushed = Vec::new();
            for item in batch.drain(..) {
                match item {
                    Item::Flush { done } => flushed.push(done),
                    item => add(&mut pipeline, item),
                }
            }
            // What was on its way when redis went is lost: a stream is not a result.
            if !pipeline.is_empty()
                && let Err(e) = link.query::<()>(&pipeline).await
            {
                tracing::warn!("live output was lost: {e}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
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

fn add(pipeline: &mut redis::Pipeline, item: Item) {
    match item {
        Item::Record { stream, record } => {
            pipeline.cmd("XADD").arg(&*stream).arg("MAXLEN").arg("~").arg(STREAM_LENGTH).arg("*");
            pipeline.arg("level").arg(record.level).arg("time").arg(record.time);
            pipeline.arg("source").arg(&*record.source).arg("text").arg(&*record.text).ignore();
        }
        Item::End { stream, state } => {
            pipeline.cmd("XADD").arg(&*stream).arg("*").arg("end").arg(state.name()).ignore();
            pipeline.cmd("EXPIRE").arg(&*stream).arg(STREAM_LIFE.as_secs()).ignore();
        }
        Item::Flush { .. } => {}
    }
}
