//! The way down: jobs, containers, bridges, services, what was mounted, the last results. Each part has its time, and what is late is
//! killed, so that the next one has its own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::time::timeout;

use super::Kept;
use super::up::Beside;
use crate::context::Node;
use crate::init;
use crate::job::Adopted;
use crate::publish::Publisher;
use crate::spawner::Spawner;

/// How long the spawner may take to say that it is well, before it is told to end anything.
pub const SPAWNER_STOP: Duration = Duration::from_millis(2000);
/// What is left of the time for the spawner to end in, at least.
const LAST_MOMENT: Duration = Duration::from_millis(300);
/// How long bridges may take to end.
const BRIDGES: Duration = Duration::from_millis(700);
/// How long what was mounted for callers may take to be unmounted.
const MOUNTS: Duration = Duration::from_millis(700);
/// How long the last results may take to be written.
const LAST_RESULTS: Duration = Duration::from_millis(700);
/// How long the last lines of the log may take.
const LAST_LINES: Duration = Duration::from_millis(200);

/// How long a stop may take, and its parts.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// All of it.
    all: Duration,
    /// Jobs after a polite signal, and again after the other one.
    jobs: Duration,
    /// All containers, half of it politely.
    containers: Duration,
    /// Their images, to be unmounted.
    images: Duration,
    /// What services have at least, however long the others took.
    services: Duration,
}

impl Pace {
    /// Of a node on somebody's desk, which is gone within five seconds, whatever runs there.
    pub const QUICK: Self = Self {
        all: Duration::from_secs(5),
        jobs: Duration::from_millis(900),
        containers: Duration::from_millis(1800),
        images: Duration::from_millis(1500),
        services: Duration::from_millis(1000),
    };
    /// Of any other: its services have the time that their units say, as long as PID 1 waits for the manager.
    pub const PATIENT: Self = Self {
        all: Duration::from_secs(25),
        jobs: Duration::from_secs(3),
        containers: Duration::from_secs(8),
        images: Duration::from_secs(3),
        services: Duration::from_secs(8),
    };
}

/// What a manager needs beyond its pace, on a machine under load, before PID 1 kills it.
const SPARE: Duration = Duration::from_secs(3);
const _: () = assert!(Pace::PATIENT.all.as_secs() + SPARE.as_secs() < init::MANAGER_STOP.as_secs());

/// A stop that has begun.
#[derive(Clone, Copy, Debug)]
pub struct Stop {
    pace: Pace,
    began: Instant,
}

impl Stop {
    /// It begins now.
    pub fn begin(pace: Pace) -> Self {
        Self { pace, began: Instant::now() }
    }

    fn left(&self, reserved: Duration) -> Duration {
        self.pace.all.saturating_sub(reserved).saturating_sub(self.began.elapsed())
    }

    /// Of a part before the services.
    fn part(&self, limit: Duration) -> Duration {
        limit.min(self.left(self.pace.services + 2 * LAST_MOMENT))
    }

    fn services(&self) -> Duration {
        self.left(MOUNTS + LAST_RESULTS + LAST_LINES + 2 * LAST_MOMENT)
    }

    /// Of a part after them.
    fn rest(&self, limit: Duration) -> Duration {
        limit.min(self.left(2 * LAST_MOMENT))
    }

    /// What the spawner has to end in.
    pub fn last(&self) -> Duration {
        self.left(LAST_MOMENT).max(LAST_MOMENT)
    }
}

/// Ends a node, as far as it was up; see the module's text. The spawner goes on, and redis.
pub async fn end(
    node: Arc<Node>,
    spawner: &Spawner,
    publisher: Publisher,
    kept: Kept,
    beside: Beside,
    stop: Stop,
) -> anyhow::Result<()> {
    let Beside { redis, writer, mut intakes } = beside;
    intakes.shutdown().await;
    // Nothing ends in order through one that hangs, and all that it started would be waited for in vain.
    if !spawner.answers(SPAWNER_STOP).await {
        tracing::error!("the spawner does not answer: it is killed");
        spawner.kill();
    }
    let Kept { jobs, mut services, .. } = kept;
    let grace = stop.part(2 * stop.pace.jobs) / 2;
    tokio::join!(node.jobs.stop(grace), end_kept(jobs, grace));
    node.containers.stop(stop.part(stop.pace.containers)).await;
    if timeout(stop.part(stop.pace.images), node.containers.unmount()).await.is_err() {
        tracing::warn!("some images of containers stay mounted until the next start");
    }
    if timeout(stop.part(BRIDGES), node.domains.stop()).await.is_err() {
        tracing::warn!("some bridges did not end in time");
    }
    if !services.is_empty()
        && let Err(e) = node.services.take_over(&mut services).await
    {
        tracing::error!("services of an earlier manager are killed: {e}");
    }
    node.services.stop_all(stop.services()).await;
    // Nothing runs from them any more.
    let flists = node.domains.flists.clone();
    match timeout(stop.rest(MOUNTS), tokio::task::spawn_blocking(move || flists.end())).await {
        Ok(ended) => ended.context("what was mounted is not unmounted")?,
        Err(_) => tracing::warn!("some flists stay mounted"),
    }
    let logs = node.logs.clone();
    drop(node);
    // The writer ends when the last sender is gone and what it sent is written.
    if let Some(writer) = writer {
        let written = async {
            let ended = writer.await;
            publisher.flush().await;
            ended
        };
        match timeout(stop.rest(LAST_RESULTS), written).await {
            Ok(ended) => ended.context("the last results were not written")?,
            Err(_) => tracing::warn!("redis did not take the last results"),
        }
    }
    if let Some(redis) = redis {
        redis.abort();
    }
    if timeout(stop.rest(LAST_LINES), logs.flush()).await.is_err() {
        tracing::warn!("the disk did not take the last lines of the log");
    }
    Ok(())
}

/// Jobs that an earlier manager left and this one did not come to. The next one answers them.
async fn end_kept(mut jobs: Adopted, grace: Duration) {
    for child in jobs.values().filter(|child| !child.had_ended) {
        child.handle().signal(libc::SIGTERM).await;
    }
    let ends = futures::future::join_all(jobs.values_mut().map(|child| child.wait()));
    if timeout(grace, ends).await.is_err() {
        tracing::warn!("some jobs of an earlier manager did not end in time: they are killed");
    }
}
