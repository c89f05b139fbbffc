//! The table of jobs, and what others do to one: list, kill, unschedule, listen.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, mpsc};

use super::remembered::Remembered;
use super::serial::Serial;
use crate::command::{CommandError, Entry, Run};
use crate::config::Limits;
use crate::context::Caller;
use crate::log::{Logs, Record, Tap};
use crate::publish::Publisher;
use crate::queue::{Note, Ticket};
use crate::spawner::{Killer, Spawner};
use crate::wire::{Envelope, Keys};

/// Most streams that one job's output goes to.
const STREAMS: usize = 32;

/// What jobs need of the node.
#[derive(Clone, Debug)]
pub struct Parts {
    /// Starts processes.
    pub spawner: Spawner,
    /// Takes their output.
    pub logs: Arc<Logs>,
    /// Takes live output.
    pub publisher: Publisher,
    /// Takes results.
    pub answers: mpsc::Sender<Note>,
}

/// The jobs of a node.
#[derive(Debug)]
pub struct Jobs {
    pub(super) parts: Parts,
    pub(super) limits: Limits,
    pub(super) live: Mutex<HashMap<Arc<str>, Arc<Job>>>,
    pub(super) remembered: Mutex<Remembered>,
    pub(super) serial: Arc<Serial>,
    pub(super) processes: Semaphore,
    /// One permit for all: taken when the last job is gone.
    ended: Notify,
}

/// A job that is not answered yet.
#[derive(Debug)]
pub struct Job {
    pub(super) keys: Keys,
    pub(super) ticket: Ticket,
    pub(super) envelope: Envelope,
    pub(super) caller: Caller,
    pub(super) entry: &'static Entry,
    pub(super) started_ms: u64,
    pub(super) control: Control,
    /// Where its output goes live.
    pub(super) streams: Mutex<Vec<String>>,
}

/// What was asked of a job from outside.
#[derive(Debug, Default)]
pub(super) struct Control {
    pub(super) asked: Mutex<Asked>,
    pub(super) changed: Notify,
    pub(super) restarts: AtomicU32,
}

#[derive(Debug, Default)]
pub(super) struct Asked {
    /// The process that runs now.
    pub(super) process: Option<(Killer, i32)>,
    /// It shall end.
    pub(super) killed: bool,
    /// It shall not run again.
    pub(super) unscheduled: bool,
}

impl Control {
    /// Waits until the job shall end.
    pub(super) async fn killed(&self) {
        self.until(|asked| asked.killed).await;
    }

    /// Waits until the job shall end or not run again.
    pub(super) async fn stopped(&self) {
        self.until(|asked| asked.killed || asked.unscheduled).await;
    }

    async fn until(&self, what: impl Fn(&Asked) -> bool) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if what(&self.asked.lock()) {
                return;
            }
            changed.await;
        }
    }
}

/// What a list of jobs shows.
#[derive(Clone, Debug)]
pub struct JobInfo {
    /// `ID`, or `USER:ID`.
    pub name: String,
    /// The command as it was sent.
    pub envelope: Envelope,
    /// When it was accepted, in ms since 1970.
    pub started_ms: u64,
    /// The process that runs for it now.
    pub pid: Option<i32>,
    /// How often it was started again.
    pub restarts: u32,
}

impl Jobs {
    /// No jobs yet.
    pub fn new(parts: Parts, limits: Limits) -> Self {
        Self {
            parts,
            processes: Semaphore::new(limits.processes),
            limits,
            live: Mutex::default(),
            remembered: Mutex::default(),
            serial: Arc::default(),
            ended: Notify::new(),
        }
    }

    /// How many are not answered yet.
    pub fn count(&self) -> usize {
        self.live.lock().len()
    }

    /// All that this caller may know of, the oldest first: its own, or everybody's.
    pub fn list(&self, caller: &Caller) -> Vec<JobInfo> {
        let mut list: Vec<JobInfo> = self
            .live
            .lock()
            .values()
            .filter(|job| caller.may_touch(&job.caller))
            .map(|job| job.info())
            .collect();
        list.sort_by(|a, b| (a.started_ms, &a.name).cmp(&(b.started_ms, &b.name)));
        list
    }

    /// The job that a caller means by an id: its own, or that of another user by `USER:ID`.
    pub fn get(&self, caller: &Caller, id: &str) -> Result<Arc<Job>, CommandError> {
        let live = self.live.lock();
        let own = Keys::new(caller.name(), id);
        live.get(own.name())
            .or_else(|| live.get(id))
            .filter(|job| caller.may_touch(&job.caller))
            .cloned()
            .ok_or_else(|| CommandError::not_found(format!("no job {id} runs")))
    }

    /// Sends a signal to the process of a job. A job without one ends, whatever the signal.
    pub async fn kill(&self, caller: &Caller, id: &str, signal: i32) -> Result<(), CommandError> {
        check(signal)?;
        self.get(caller, id)?.kill(signal).await;
        Ok(())
    }

    /// Kills all jobs that this caller may touch, but the one that asks.
    pub async fn kill_all(&self, caller: &Caller, but: &str, signal: i32) -> Result<usize, CommandError> {
        check(signal)?;
        let own = Keys::new(caller.name(), but);
        let jobs: Vec<_> = self.live.lock().values().cloned().collect();
        let mut count = 0;
        for job in jobs.iter().filter(|job| caller.may_touch(&job.caller) && job.keys != own) {
            job.kill(signal).await;
            count += 1;
        }
        Ok(count)
    }

    /// A recurring job ends after its present run.
    pub fn unschedule(&self, caller: &Caller, id: &str) -> Result<(), CommandError> {
        let job = self.get(caller, id)?;
        job.control.asked.lock().unscheduled = true;
        job.control.changed.notify_waiters();
        Ok(())
    }

    /// Lets the output of a job go to one more stream, after its last `backlog` messages.
    pub fn subscribe(
        &self,
        caller: &Caller,
        id: &str,
        stream: &str,
        backlog: usize,
    ) -> Result<(), CommandError> {
        let job = self.get(caller, id)?;
        let mut streams = job.streams.lock();
        if streams.len() >= STREAMS {
            return Err(CommandError::unavailable(format!(
                "{STREAMS} streams of job {id} are listened to already"
            )));
        }
        let tap = Tap { stream: stream.into(), levels: Vec::new(), source: Some(job.source()) };
        for record in self.parts.logs.last(&tap, backlog) {
            self.parts.publisher.publish(stream, &record);
        }
        streams.push(stream.into());
        Ok(())
    }

    /// Ends all jobs: a polite signal, and after `grace` the other one. Returns when all are answered.
    pub async fn stop(&self, grace: std::time::Duration) {
        let kill = async |signal| {
            let jobs: Vec<_> = self.live.lock().values().cloned().collect();
            for job in jobs {
                job.kill(signal).await;
            }
        };
        kill(libc::SIGTERM).await;
        if tokio::time::timeout(grace, self.none_left()).await.is_err() {
            kill(libc::SIGKILL).await;
            if tokio::time::timeout(grace, self.none_left()).await.is_err() {
                tracing::warn!("{} jobs did not end", self.count());
            }
        }
    }

    async fn none_left(&self) {
        loop {
            let ended = self.ended.notified();
            if self.count() == 0 {
                return;
            }
            // Whoever ends between the two lines has stored a permit.
            ended.await;
        }
    }

    pub(super) fn remove(&self, job: &Job) {
        self.live.lock().remove(job.keys.name());
        self.ended.notify_one();
    }
}

fn check(signal: i32) -> Result<(), CommandError> {
    match signal {
        1..=64 => Ok(()),
        other => Err(CommandError::bad_request(format!("{other} is no signal: they are 1 to 64"))),
    }
}

impl Job {
    /// What lists show of it.
    pub fn info(&self) -> JobInfo {
        JobInfo {
            name: self.keys.name().to_string(),
            envelope: self.envelope.clone(),
            started_ms: self.started_ms,
            // In a container it has a number that is somebody else's out here.
            pid: self
                .control
                .asked
                .lock()
                .process
                .as_ref()
                .map(|(_, pid)| *pid)
                .filter(|_| self.envelope.container.is_none()),
            restarts: self.control.restarts.load(Ordering::Relaxed),
        }
    }

    /// Whether redis is told that it began: it will take a while.
    pub(super) fn begins(&self) -> bool {
        matches!(self.entry.run, Run::Process(_))
    }

    /// The source of its records in the log.
    pub(super) fn source(&self) -> Arc<str> {
        format!("job {}", self.keys.name()).into()
    }

    pub(super) async fn kill(&self, signal: i32) {
        let killer = {
            let mut asked = self.control.asked.lock();
            let deadly =
                [libc::SIGTERM, libc::SIGKILL, libc::SIGINT, libc::SIGQUIT, libc::SIGHUP].contains(&signal);
            asked.killed |= deadly || asked.process.is_none();
            asked.process.as_ref().map(|(killer, _)| killer.clone())
        };
        if let Some(killer) = killer {
            killer.signal(signal).await;
        }
        self.control.changed.notify_waiters();
    }

    /// Sends a record to the streams of this job.
    pub(super) fn publish(&self, publisher: &Publisher, record: &Record) {
        for stream in &*self.streams.lock() {
            publisher.publish(stream, record);
        }
    }
}
