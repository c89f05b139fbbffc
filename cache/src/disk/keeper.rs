//! The thread of the disk tier: puts the blocks that wait, flushes when idle, heals when sick. It waits on one condition and never polls.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::pending::Pending;
use super::store::Store;

/// After this long without a put the write buffer goes to a file, so that a crash later loses nothing.
const IDLE: Duration = Duration::from_secs(2);
/// Waits before the database is opened again: doubled each time, from the first one after a quiet spell.
const HEAL_FIRST: Duration = Duration::from_secs(1);
const HEAL_LAST: Duration = Duration::from_secs(60);
const QUIET: Duration = Duration::from_secs(300);

/// What the keeper has to do, and its bell.
pub(super) struct Duties {
    todo: Mutex<Todo>,
    bell: Condvar,
}

#[derive(Default)]
struct Todo {
    last_put: Option<Instant>,
    heal_at: Option<Instant>,
    heal_wait: Duration,
    last_heal: Option<Instant>,
    stop: bool,
}

enum Next {
    Put,
    Flush,
    Heal,
    Stop,
}

impl Duties {
    pub(super) fn new() -> Duties {
        Duties { todo: Mutex::new(Todo::default()), bell: Condvar::new() }
    }

    /// There is something to flush.
    pub(super) fn note_put(&self) {
        if self.todo.lock().last_put.replace(Instant::now()).is_none() {
            self.bell.notify_one();
        }
    }

    /// The blocks that wait are the first one, or too many.
    pub(super) fn note_pending(&self) {
        // Whoever looks at them holds the lock until it waits, so the bell is not rung in between.
        let _todo = self.todo.lock();
        self.bell.notify_one();
    }

    /// The database failed, now or again.
    pub(super) fn note_trouble(&self) {
        let mut todo = self.todo.lock();
        if todo.heal_at.is_some() {
            return;
        }
        let quiet = todo.last_heal.is_none_or(|last| last.elapsed() > QUIET);
        todo.heal_wait = if quiet { HEAL_FIRST } else { (todo.heal_wait * 2).min(HEAL_LAST) };
        todo.heal_at = Some(Instant::now() + todo.heal_wait);
        self.bell.notify_one();
    }

    /// Waits for the next duty that is due, and takes it off the list.
    fn next(&self, pending: &Pending) -> Next {
        let mut todo = self.todo.lock();
        loop {
            if todo.stop {
                return Next::Stop;
            }
            let now = Instant::now();
            let put_at = pending.due();
            let flush_at = todo.last_put.map(|last| last + IDLE);
            if todo.heal_at.is_some_and(|at| at <= now) {
                todo.heal_at = None;
                todo.last_heal = Some(now);
                return Next::Heal;
            }
            if put_at.is_some_and(|at| at <= now) {
                return Next::Put;
            }
            if flush_at.is_some_and(|at| at <= now) {
                todo.last_put = None;
                return Next::Flush;
            }
            match [todo.heal_at, put_at, flush_at].into_iter().flatten().min() {
                Some(at) => {
                    self.bell.wait_until(&mut todo, at);
                }
                None => self.bell.wait(&mut todo),
            }
        }
    }
}

/// The running thread; ends with a last flush when dropped.
pub(super) struct Keeper {
    store: Arc<Store>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    pub(super) fn start(store: Arc<Store>) -> std::io::Result<Keeper> {
        let kept = Arc::clone(&store);
        let thread = std::thread::Builder::new().name("g8-cache-keeper".into()).spawn(move || run(&kept))?;
        Ok(Keeper { store, thread: Some(thread) })
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        let duties = self.store.duties();
        duties.todo.lock().stop = true;
        duties.bell.notify_one();
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::warn!("the keeper of the disk cache had panicked");
        }
    }
}

/// It yields the processors to those who read: what is put costs as much as what is proven, and nobody waits for it.
const NICE: i32 = 10;

fn run(store: &Store) {
    if let Err(error) = rustix::process::nice(NICE) {
        tracing::debug!(%error, "the keeper of the disk cache is as urgent as the readers");
    }
    loop {
        match store.duties().next(store.pending()) {
            Next::Put => store.put_first(),
            Next::Flush => store.flush(),
            Next::Heal => store.heal(),
            Next::Stop => return store.flush(),
        }
    }
}
