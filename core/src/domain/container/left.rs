//! Jobs of an earlier manager in a container: between the spawner inside, which tells of them when it can, and the jobs of this
//! manager that go on with them. Both may come first.

use std::collections::HashMap;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::job::Adopted;
use crate::spawner::Child;

/// See the module's text.
#[derive(Debug)]
pub struct Left {
    /// Who waits for which one; none when all was told.
    waiting: Mutex<Option<HashMap<String, oneshot::Sender<Child>>>>,
}

impl Left {
    /// Of a container that no earlier manager knew.
    pub fn nothing() -> Self {
        Self { waiting: Mutex::new(None) }
    }

    /// Of one whose spawner has not told yet.
    pub fn untold() -> Self {
        Self { waiting: Mutex::new(Some(HashMap::new())) }
    }

    /// The process of a job, when it is told; an error when there is none. None when all was told already.
    pub fn of(&self, job: &str) -> Option<oneshot::Receiver<Child>> {
        let (sender, receiver) = oneshot::channel();
        self.waiting.lock().as_mut()?.insert(job.to_owned(), sender);
        Some(receiver)
    }

    /// Hands all there are to who waits for them, and gives those that nobody waits for.
    pub fn tell(&self, mut jobs: Adopted) -> Adopted {
        let waiting = self.waiting.lock().take().unwrap_or_default();
        for (name, sender) in waiting {
            if let Some(child) = jobs.remove(&name)
                && let Err(child) = sender.send(child)
            {
                jobs.insert(name, child);
            }
        }
        jobs
    }
}
