//! A bound on work that would hold up an async thread: hashing, decoding, disk.

use crate::class::{Class, Urgency};
use crate::gate::Gate;

/// More jobs at once than cores, since some of them wait for the disk.
const SPARE: usize = 2;

/// Runs closures on tokio's blocking threads, at most cores + 2 at a time, the most urgent first.
#[derive(Clone)]
pub(crate) struct Workers {
    gate: Gate,
}

impl Workers {
    pub(crate) fn new() -> Workers {
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
        // The same for every class: a job is over in a millisecond, so none is kept free.
        Workers { gate: Gate::new([cores + SPARE; Class::COUNT]) }
    }

    /// Runs `job`. When the caller goes away the job still ends, holding its place until then; so a crowd of
    /// cancelled readers cannot pile up threads.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        urgency: &Urgency,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        let place = self.gate.enter(urgency).await;
        let done = tokio::task::spawn_blocking(move || {
            let _place = place;
            job()
        });
        match done.await {
            Ok(value) => value,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // Only a runtime that shuts down cancels a blocking job, and then nobody polls this again.
                Err(_cancelled) => std::future::pending().await,
            },
        }
    }
}
