//! Live output: records that go to redis streams, many to a round trip. Dropped and counted when redis is behind.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use redis::{RedisResult, Script};
use tokio::sync::{mpsc, oneshot};

use crate::log::Record;
use crate::redis::Link;
use crate::wire::{STREAM_LENGTH, STREAM_LIFE, State};

/// Records that wait for redis, and bytes of their texts.
const WAITING: usize = 8192;
const WAITING_BYTES: usize = 4 << 20;
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

/// Ends streams: for each key its state. Also in a redis that is full, as readers wait for it. A key that somebody made
/// something else of is ours again.
const END: &str = r"#!lua flags=allow-oom
for i, key in ipairs(KEYS) do
  local reply = redis.pcall('XADD', key, '*', 'end', ARGV[i + 1])
  if type(reply) == 'table' and reply.err then
    redis.call('DEL', key)
    redis.call('XADD', key, '*', 'end', ARGV[i + 1])
  end
  redis.call('EXPIRE', key, ARGV[1])
end";

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
    /// Of what waits.
    bytes: Arc<AtomicUsize>,
    dropped: Arc<AtomicU64>,
}

/// The end that writes to redis.
#[derive(Debug)]
pub struct Outlet {
    items: mpsc::Receiver<Item>,
    bytes: Arc<AtomicUsize>,
    dropped: Arc<AtomicU64>,
}

/// Both ends.
pub fn channel() -> (Publisher, Outlet) {
    let (sender, items) = mpsc::channel(WAITING);
    let (bytes, dropped): (Arc<AtomicUsize>, Arc<AtomicU64>) = Default::default();
    let publisher = Publisher { items: sender, bytes: bytes.clone(), dropped: dropped.clone() };
    (publisher, Outlet { items, bytes, dropped })
}

impl Publisher {
    /// Adds a record to a stream, unless too many wait.
    pub fn publish(&self, stream: &str, record: &Record) {
        let item = Item::Record { stream: stream.into(), record: record.clone() };
        let bytes = item.bytes();
        let waiting = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if waiting + bytes > WAITING_BYTES || self.items.try_send(item).is_err() {
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
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
        let end = Script::new(END);
        let mut batch = Vec::with_capacity(BATCH);
        while self.items.recv_many(&mut batch, BATCH).await > 0 {
            // Records that were on their way when redis went, or was full, are lost: a stream is not a result.
            if let Err(e) = write(&mut link, &batch).await {
                tracing::warn!("live output was lost: {e}");
            }
            let ends: Vec<(Arc<str>, State)> = batch.iter().filter_map(Item::end).collect();
            for failures in 0..ENDS {
                let Err(e) = write_ends(&mut link, &end, &ends).await else { break };
                if failures == 0 {
                    tracing::warn!("the ends of {} streams wait for redis: {e}", ends.len());
                }
                tokio::time::sleep(PAUSE).await;
            }
            self.bytes.fetch_sub(batch.iter().map(Item::bytes).sum(), Ordering::Relaxed);
            for done in batch.drain(..).filter_map(Item::done) {
                // Who waited may have given up.
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

    /// Of its text, which is cut only when it is written.
    fn bytes(&self) -> usize {
        match self {
            Item::Record { record, .. } => record.text.len(),
            Item::End { .. } | Item::Flush { .. } => 0,
        }
    }

    fn end(&self) -> Option<(Arc<str>, State)> {
        match self {
            Item::End { stream, state } => Some((stream.clone(), *state)),
            Item::Record { .. } | Item::Flush { .. } => None,
        }
    }
}

/// Writes the ends of a batch, which come after its records: nothing follows the end of a stream.
async fn write_ends(link: &mut Link, script: &Script, ends: &[(Arc<str>, State)]) -> RedisResult<()> {
    if ends.is_empty() {
        return Ok(());
    }
    let mut call = script.prepare_invoke();
    call.arg(STREAM_LIFE.as_secs());
    for (stream, state) in ends {
        call.key(&**stream).arg(state.name());
    }
    link.invoke(&call).await
}

/// Writes the records of a batch.
async fn write(link: &mut Link, batch: &[Item]) -> RedisResult<()> {
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
            Item::End { .. } | Item::Flush { .. } => {}
        }
    }
    for stream in live {
        pipeline.cmd("EXPIRE").arg(&**stream).arg(LIVE_LIFE.as_secs()).ignore();
    }
    if pipeline.is_empty() {
        return Ok(());
    }
    link.query(&pipeline).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_waits_for_redis_is_bounded_by_number_and_bytes_and_the_rest_is_counted() {
        for (size, most) in [(1, WAITING), (TEXT_MAX, WAITING_BYTES / TEXT_MAX)] {
            let (publisher, mut outlet) = channel();
            let (time, source, text) = (0, "job x".into(), "x".repeat(size).into());
            let record = Record { time, source, level: 1, text, place: None };
            (0..WAITING + 5).for_each(|_| publisher.publish("stream:x", &record));
            assert_eq!(publisher.dropped.load(Ordering::Relaxed), (WAITING + 5 - most) as u64);
            assert_eq!(publisher.bytes.load(Ordering::Relaxed), most * size);
            let mut waiting = Vec::new();
            outlet.items.recv_many(&mut waiting, WAITING).await;
            assert_eq!(waiting.len(), most);
        }
    }
}
