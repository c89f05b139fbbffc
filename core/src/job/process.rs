//! One process of a job, from its start to its end: what it prints, its deadline, how it ended.

use std::io;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::sync::Arc;

use tokio::net::unix::pipe::Receiver;
use tokio::time::{Duration, Instant, sleep_until};

use super::outcome::Outcome;
use super::tail::Tail;
use super::{Job, Jobs};
use crate::command::{Code, CommandError};
use crate::log::{Record, now_ms};
use crate::process::{Message, Messages, Process, level};
use crate::spawner::{Child, Exit, SpawnError, Spawner};
use crate::wire::State;

/// A deadline for jobs that have none.
const NEVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// What is read at once.
const CHUNK: usize = 16 << 10;
/// Most bytes that are read of what lies in a pipe when the process has ended: more than any pipe holds by default.
const REST: usize = 1 << 20;

impl Jobs {
    /// Starts a process for a job and follows it.
    pub(super) async fn start(&self, job: &Job, process: &Process, spawner: &Spawner) -> Outcome {
        let tag = format!("job {}", job.keys.name());
        match spawner.spawn(process, &tag).await {
            Ok(child) => self.follow(job, child).await,
            Err(error) => {
                let code = match &error {
                    SpawnError::Failed { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                        Code::NotFound
                    }
                    SpawnError::Failed { .. } => Code::Internal,
                    SpawnError::Gone => Code::Unavailable,
                };
                let error = CommandError::new(code, job.entry.name).because(error);
                let message = error.report();
                Outcome { streams: [String::new(), message], ..Outcome::told(State::Error, &error) }
            }
        }
    }

    /// Follows a process to its end.
    pub(super) async fn follow(&self, job: &Job, mut child: Child) -> Outcome {
        let killer = child.killer();
        let killed_before = {
            let mut asked = job.control.asked.lock();
            asked.process = Some((killer.clone(), child.pid));
            asked.killed
        };
        if killed_before {
            killer.signal(libc::SIGKILL).await;
        }
        let mut output = Output::new(self, job, child.output.take());
        let age = Duration::from_millis(now_ms().saturating_sub(child.started_ms));
        let left = job.envelope.max_time.map_or(NEVER, |max| max.saturating_sub(age));
        let mut deadline = pin!(sleep_until(Instant::now() + left));
        let mut late = false;
        let exit = loop {
            tokio::select! {
                exit = child.wait() => break exit,
                () = output.pass(), if output.is_open() => {}
                () = &mut deadline, if !late => {
                    late = true;
                    killer.signal(libc::SIGKILL).await;
                }
            }
        };
        let killed = {
            let mut asked = job.control.asked.lock();
            asked.process = None;
            asked.killed
        };
        let heard = output.finish();
        let (state, code) = match exit {
            Some(Exit::Code(0)) if !late => (State::Success, 0),
            _ if late => (State::Timeout, 1000 + 128 + libc::SIGKILL as u32),
            Some(Exit::Code(code)) if killed => (State::Killed, 1000 + code as u32),
            Some(Exit::Code(code)) => (State::Error, 1000 + code as u32),
            Some(Exit::Signal(signal)) if killed => (State::Killed, 1000 + 128 + signal as u32),
            Some(Exit::Signal(signal)) => (State::Error, 1000 + 128 + signal as u32),
            None => (State::Error, Code::Unavailable.number()),
        };
        let critical = match exit {
            None if job.envelope.container.is_some() => {
                "its container ended, and this process with it".into()
            }
            None => "the spawner died, and this process with it".into(),
            Some(_) if late => "killed: it took longer than its max_time".into(),
            Some(_) => String::new(),
        };
        Outcome { state, code, critical, ..heard }
    }
}

/// What a process prints, on its way to the log, the streams and the result.
struct Output<'a> {
    jobs: &'a Jobs,
    job: &'a Job,
    source: Arc<str>,
    pipes: [Option<(Receiver, Messages)>; 2],
    tails: [Tail; 2],
    answer: Option<Message>,
}

impl<'a> Output<'a> {
    fn new(jobs: &'a Jobs, job: &'a Job, ends: Option<[OwnedFd; 2]>) -> Self {
        let pipes = match ends {
            Some([out, err]) => [(out, level::STDOUT), (err, level::STDERR)].map(|(end, plain)| {
                let receiver = Receiver::from_owned_fd(end);
                receiver
                    .inspect_err(|e| tracing::error!("the output of job {} is lost: {e}", job.keys.name()))
                    .ok()
                    .map(|receiver| (receiver, Messages::new(plain)))
            }),
            None => [None, None],
        };
        Self { jobs, job, source: job.source(), pipes, tails: Default::default(), answer: None }
    }

    fn is_open(&self) -> bool {
        self.pipes.iter().any(Option::is_some)
    }

    /// Waits for something to read, and reads it.
    async fn pass(&mut self) {
        let [out, err] = &self.pipes;
        let which = tokio::select! {
            () = readable(out), if out.is_some() => 0,
            () = readable(err), if err.is_some() => 1,
        };
        self.read(which, Receiver::try_read);
    }

    /// Reads once; how many bytes, 0 when there is nothing now or ever.
    fn read(&mut self, which: usize, read: fn(&Receiver, &mut [u8]) -> io::Result<usize>) -> usize {
        let Some((receiver, mut messages)) = self.pipes[which].take() else { return 0 };
        let mut bytes = [0; CHUNK];
        match read(&receiver, &mut bytes) {
            Ok(0) => {
                messages.finish(&mut |message| self.take(message));
                0
            }
            Ok(count) => {
                messages.feed(&bytes[..count], &mut |message| self.take(message));
                self.pipes[which] = Some((receiver, messages));
                count
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                self.pipes[which] = Some((receiver, messages));
                0
            }
            Err(e) => {
                tracing::warn!("cannot read the output of {}: {e}", self.source);
                messages.finish(&mut |message| self.take(message));
                0
            }
        }
    }

    fn take(&mut self, message: Message) {
        let levels = &self.job.envelope.log_levels;
        let listened = !self.job.streams.lock().is_empty();
        let logged = levels.is_empty() || levels.contains(&message.level);
        if logged || listened {
            let text = message.text.as_str().into();
            let record = Record { time: now_ms(), source: self.source.clone(), level: message.level, text };
            if logged {
                self.jobs.parts.logs.put(&record);
            }
            self.job.publish(&self.jobs.parts.publisher, &record);
        }
        match message.level {
            level::STDOUT => self.tails[0].put(message.text),
            level::STDERR => self.tails[1].put(message.text),
            other if level::is_result(other) => self.answer = Some(message),
            _ => {}
        }
    }

    /// Reads what lies in the pipes. What a background process writes later is not this job's any more.
    fn finish(mut self) -> Outcome {
        for which in 0..2 {
            let mut total = 0;
            loop {
                let count = self.read(which, read_past_tokio);
                total += count;
                if count == 0 || total > REST {
                    break;
                }
            }
            if let Some((_, mut messages)) = self.pipes[which].take() {
                messages.finish(&mut |message| self.take(message));
            }
        }
        let Message { level, text } = self.answer.unwrap_or(Message { level: 0, text: String::new() });
        let streams = [self.tails[0].text(), self.tails[1].text()];
        Outcome { level, data: text, streams, ..Outcome::bare(State::Success, 0) }
    }
}

/// tokio believes a pipe empty until it heard otherwise. What a process printed is in the pipe when its end is known.
fn read_past_tokio(receiver: &Receiver, bytes: &mut [u8]) -> io::Result<usize> {
    Ok(rustix::io::read(receiver, bytes)?)
}

async fn readable(pipe: &Option<(Receiver, Messages)>) {
    match pipe {
        // An error shows when it is read.
        Some((receiver, _)) => drop(receiver.readable().await),
        None => std::future::pending().await,
    }
}
