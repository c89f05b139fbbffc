//! The table of jobs, and what others do to one: list, kill, unschedule, listen.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, mpsc};

use super::looks::Looks;
use super::remembered::Remembered;
use super::serial::Serial;
use super::spool::Glass;
use super::statistics::{Entry as Statistic, Statistics};
use super::terminal;
use crate::command::{CommandError, Entry, Role, Run};
use crate::config::Limits;
use crate::context::Caller;
use crate::log::{Logs, Record, Room, Tap};
use crate::process::{Metric, level};
use crate::publish::Publisher;
use crate::queue::{Note, Ticket};
use crate::redis::Access;
use crate::spawner::{Handle, Spawner};
use crate::wire::{Envelope, Keys, statistics_key};

/// Most streams that one job's output goes to.
const STREAMS: usize = 32;

/// Most jobs on terminals at once: each has a connection to redis.
const TERMINALS: usize = 64;

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
    /// Where input comes from.
    pub access: Access,
}

/// The jobs of a node.
#[derive(Debug)]
pub struct Jobs {
    pub(super) parts: Parts,
    pub(super) limits: Limits,
    pub(super) live: Mutex<HashMap<Arc<str>, Arc<Job>>>,
    /// The sizes of their commands together.
    pub(super) bytes: AtomicUsize,
    pub(super) remembered: Mutex<Remembered>,
    pub(super) dropped: Dropped,
    pub(super) serial: Arc<Serial>,
    pub(super) processes: Semaphore,
    /// Most processes and threads of one.
    pub(super) processes_each: u64,
    pub(super) terminals: Semaphore,
    glass: Mutex<Option<Glass>>,
    statistics: Mutex<Statistics>,
    pub(super) looks: Looks,
    /// One permit for all: taken when the last job is gone.
    ended: Notify,
    /// Told when a command is accepted, or refused.
    pub(super) accepted: Notify,
}

/// What came out of the queues and was no new command.
#[derive(Debug, Default)]
pub(super) struct Dropped {
    /// Of an id that was there already.
    pub(super) duplicates: AtomicU64,
    /// Without an id that could be answered.
    pub(super) unreadable: AtomicU64,
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
    /// Bytes of the command.
    pub(super) size: usize,
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
    /// Redis was told that it is there.
    pub(super) begun: AtomicBool,
}

#[derive(Debug, Default)]
pub(super) struct Asked {
    /// The process that runs now.
    pub(super) process: Option<(Handle, i32)>,
    /// Its terminal; input is passed on as long as this is here.
    pub(super) input: Option<terminal::Input>,
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
            processes_each: limits.processes_each(),
            limits,
            live: Mutex::default(),
            bytes: AtomicUsize::new(0),
            remembered: Mutex::default(),
            dropped: Dropped::default(),
            serial: Arc::default(),
            terminals: Semaphore::new(TERMINALS),
            glass: Mutex::default(),
            statistics: Mutex::default(),
            looks: Looks::new(),
            ended: Notify::new(),
            accepted: Notify::new(),
        }
    }

    /// How many processes were reaped that others had left behind, when the spawner says so in time.
    pub async fn orphans(&self, limit: std::time::Duration) -> Option<u64> {
        self.parts.spawner.orphans(limit).await
    }

    /// How many duplicates were dropped, and how many that nobody could be answered about.
    pub fn dropped(&self) -> (u64, u64) {
        let Dropped { duplicates, unreadable } = &self.dropped;
        (duplicates.load(Ordering::Relaxed), unreadable.load(Ordering::Relaxed))
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

    /// Does something to the terminal of a job.
    pub fn input(&self, caller: &Caller, id: &str, entry: terminal::Entry) -> Result<(), CommandError> {
        if !entry.is_sound() {
            return Err(CommandError::bad_request(
                "too much is typed at once, or no terminal is of this size",
            ));
        }
        let job = self.get(caller, id)?;
        let asked = job.control.asked.lock();
        let input = asked.input.as_ref();
        let input = input.ok_or_else(|| CommandError::precondition(format!("job {id} has no terminal")))?;
        input
            .entries
            .try_send(entry)
            .map_err(|_| CommandError::unavailable(format!("job {id} does not read its terminal")))
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

    /// Adds a statistic of a job; spans that it finds to be over go to their streams.
    pub(super) fn gather(&self, job: &Job, source: &Arc<str>, time: u64, metric: Metric) {
        for over in self.statistics.lock().put(&job.caller.user, metric, time) {
            // Numbers, and texts that were one line.
            let text = serde_json::to_string(&over).unwrap_or_default().into();
            let (source, level) = (source.clone(), level::METRIC);
            let record = Record { time, source, level, text, place: None };
            self.parts.publisher.publish(&statistics_key(over.span), &record);
        }
    }

    /// The statistics that a caller may see, of a key, and with all of these tags.
    pub fn statistics(
        &self,
        caller: &Caller,
        key: Option<&str>,
        tags: &BTreeMap<String, String>,
    ) -> Vec<Statistic> {
        let owner = Some(caller.user.as_str()).filter(|_| caller.role != Role::Admin);
        self.statistics.lock().find(owner, key, tags)
    }

    /// What lies in a pipe, which stays there.
    pub(super) fn peek(&self, pipe: BorrowedFd<'_>) -> io::Result<Vec<u8>> {
        let mut shared = self.glass.lock();
        // One that failed on the way may hold something still: it is not used again.
        let glass = shared.take().map_or_else(Glass::new, Ok)?;
        let seen = glass.peek(pipe)?;
        *shared = Some(glass);
        Ok(seen)
    }

    pub(super) fn remove(&self, job: &Job) {
        if self.live.lock().remove(job.keys.name()).is_some() {
            self.bytes.fetch_sub(job.size, Ordering::Relaxed);
        }
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

    /// Whether it is a process: it will take a while.
    pub(super) fn is_process(&self) -> bool {
        matches!(self.entry.run, Run::Process(_))
    }

    /// Whether redis was told that it is there.
    pub(super) fn has_begun(&self) -> bool {
        self.control.begun.load(Ordering::Relaxed)
    }

    /// The source of its records in the log.
    pub(super) fn source(&self) -> Arc<str> {
        format!("job {}", self.keys.name()).into()
    }

    /// Returns when it has taken longer than it may, from now on.
    pub(super) async fn late(&self) {
        match self.envelope.max_time {
            Some(max) => tokio::time::sleep(max).await,
            None => std::future::pending().await,
        }
    }

    pub(super) async fn kill(&self, signal: i32) {
        let handle = {
            let mut asked = self.control.asked.lock();
            let deadly =
                [libc::SIGTERM, libc::SIGKILL, libc::SIGINT, libc::SIGQUIT, libc::SIGHUP].contains(&signal);
            asked.killed |= deadly || asked.process.is_none();
            asked.process.as_ref().map(|(handle, _)| handle.clone())
        };
        if let Some(handle) = handle {
            handle.signal(signal).await;
        }
        self.control.changed.notify_waiters();
    }

    /// Passes on what its process said: to its streams, and to the log what its levels let through. What a terminal
    /// shows comes live as it is, and by lines into the log.
    pub(super) fn hear(&self, parts: &Parts, shown: Option<Record>, mut records: Vec<Record>, room: Room) {
        // Held until the log has it: who begins to listen gets from there what was before, and from here the rest.
        let streams = self.streams.lock();
        for stream in &*streams {
            let live = shown.as_ref().map_or(records.as_slice(), std::slice::from_ref);
            for record in live.iter().filter(|record| shown.is_none() || !record.text.is_empty()) {
                parts.publisher.publish(stream, record);
            }
        }
        let levels = &self.envelope.log_levels;
        records.retain(|record| levels.is_empty() || levels.contains(&record.level));
        parts.logs.put(records, room);
    }
}
