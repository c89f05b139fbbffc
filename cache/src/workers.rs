//! A bound on work that would hold up an async thread: hashing, decoding, disk.

use std::sync::Arc;

use tokio::sync::Semaphore;

/// More jobs at once than cores, since some of them wait for the disk.
const SPARE: usize = 2;

/// Runs closures on tokio's blocking threads, at most cores + 2 at a time.
#[derive(Clone, Debug)]
pub(crate) struct Workers {
    permits: Arc<Semaphore>,
}

impl Workers {
    pub(crate) fn new() -> Workers {
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
        Workers { permits: Arc::new(Semaphore::new(cores + SPARE)) }
    }

    /// Runs `job`. When the caller goes away the job still ends, holding its permit until then; so a crowd of
    /// cancelled readers cannot pile up threads.
    pub(crate) async fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let permit = Arc::clone(&self.permits)
            .acquire_owned()
            .await
            .expect("the semaphore of workers is never closed");
        let done = tokio::task::spawn_blocking(move || {
            let _permit = permit;
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
