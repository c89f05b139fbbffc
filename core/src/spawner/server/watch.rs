//! A thread that calls the spawner when the machine has so many threads that somebody may have too many processes.
//!
//! It reads one number ten times a second, and has a processor as soon as it wants one, since it is in the lowest class of those
//! that do not share. The spawner is not: who comes at once to whatever is asked does less at a time, and starts a third fewer
//! processes. Among thousands that want a processor it would come seconds too late, so it is in that class from a call until it rests.
//!
//! The thread allocates nothing once it runs and holds no lock, so a copy of this process, as in a container, is whole.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, eventfd};

use super::reserve;

/// Between two readings.
const PAUSE: Duration = Duration::from_millis(100);
/// It needs a page or two.
const STACK: usize = 64 << 10;

/// See the module's text.
pub struct Watch(Arc<Shared>);

struct Shared {
    /// proc_loadavg(5).
    loads: File,
    /// Readable when the spawner is called.
    call: OwnedFd,
    /// The spawner has been called and does not rest yet.
    called: AtomicBool,
    /// It is called when there are more threads than this,
    most: AtomicU64,
    /// and either so many that these are two thirds of them,
    seen: AtomicU64,
    /// or it has rested until now, in milliseconds since this began.
    rested: AtomicU64,
    began: Instant,
    /// The thread of the spawner.
    spawner: i32,
}

impl Watch {
    /// Starts it for the thread that calls this.
    pub fn start(most: u64) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            loads: File::open("/proc/loadavg")?,
            call: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            called: AtomicBool::new(false),
            most: AtomicU64::new(most),
            seen: AtomicU64::new(0),
            rested: AtomicU64::new(0),
            began: Instant::now(),
            // SAFETY: it takes nothing.
            spawner: unsafe { libc::gettid() },
        });
        let (its, runs) = (shared.clone(), Arc::new(Barrier::new(2)));
        let ready = runs.clone();
        thread::Builder::new().name("watch".into()).stack_size(STACK).spawn(move || {
            let _ = reserve::go_first(0);
            ready.wait();
            its.run()
        })?;
        runs.wait();
        Ok(Self(shared))
    }

    /// From now on more threads than this are too many, if they are fewer than before.
    pub fn lower(&self, most: u64) {
        self.0.most.fetch_min(most, Ordering::Relaxed);
    }

    /// How many threads the machine has. Who cannot know has more than enough.
    pub fn threads(&self) -> u64 {
        self.0.loads().map_or(u64::MAX, |(threads, _)| threads)
    }

    /// The pid that was handed out last.
    pub fn last_pid(&self) -> Option<i32> {
        self.0.loads().map(|(_, pid)| pid)
    }

    /// The spawner, called when it saw so many, has looked and rests.
    pub fn rest(&self, seen: u64, rest: Duration) {
        let until = self.0.began.elapsed() + rest;
        self.0.seen.store(seen, Ordering::Relaxed);
        self.0.rested.store(until.as_millis() as u64, Ordering::Relaxed);
        // It is empty only if this was not called.
        let _ = rustix::io::read(&self.0.call, &mut [0; 8]);
        self.0.called.store(false, Ordering::Release);
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.call.as_fd()
    }
}

impl Shared {
    /// The spawner's class is changed here alone: who shares a processor with thousands may stand still at any instruction.
    fn run(&self) {
        let mut is_first = false;
        loop {
            thread::sleep(PAUSE);
            if self.called.load(Ordering::Acquire) {
                continue;
            }
            let is_due = self.is_due();
            // Without the rights for that, it comes later; that was said at the beginning.
            if is_due && !is_first {
                let _ = reserve::go_first(self.spawner);
            } else if is_first && !is_due {
                let _ = reserve::go_with_others(self.spawner);
            }
            is_first = is_due;
            if is_due {
                self.called.store(true, Ordering::Relaxed);
                // It has room for more calls than there can be.
                let _ = rustix::io::write(&self.call, &1u64.to_ne_bytes());
            }
        }
    }

    fn is_due(&self) -> bool {
        let (threads, seen) = (self.loads().map_or(u64::MAX, |(threads, _)| threads), &self.seen);
        threads > self.most.load(Ordering::Relaxed)
            && (threads / 3 > seen.load(Ordering::Relaxed) / 2
                || self.began.elapsed().as_millis() as u64 >= self.rested.load(Ordering::Relaxed))
    }

    /// All threads of the machine, and the pid that was handed out last.
    fn loads(&self) -> Option<(u64, i32)> {
        let mut line = [0; 128];
        let read = self.loads.read_at(&mut line, 0).ok()?;
        let mut fields = std::str::from_utf8(&line[..read]).ok()?.split_ascii_whitespace().skip(3);
        let (_, threads) = fields.next()?.split_once('/')?;
        Some((threads.parse().ok()?, fields.next()?.parse().ok()?))
    }
}
