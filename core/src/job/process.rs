//! One process of a job, from its start to its end: what it prints, its deadline, how it ended.

use std::io;
use std::pin::pin;

use tokio::time::{Duration, Instant, sleep_until};

use super::looks::Watch;
use super::outcome::Outcome;
use super::output::Output;
use super::{Job, Jobs, Usage};
use crate::command::{Code, CommandError};
use crate::process::Process;
use crate::spawner::{Child, Exit, SpawnError, Spawner};
use crate::wire::State;

/// A deadline for jobs that have none.
const NEVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

impl Jobs {
    /// Starts a process for a job and follows it. What it printed is there as long as its child is.
    pub(super) async fn start(
        &self,
        job: &Job,
        process: &Process,
        spawner: &Spawner,
    ) -> (Outcome, Option<Child>) {
        // The next manager takes over jobs, and none on a terminal: nobody sees what it shows any more.
        let (kind, _permit) = match process.terminal.map(|_| self.terminals.try_acquire()) {
            None => ("job", None),
            Some(Ok(permit)) => ("terminal", Some(permit)),
            Some(Err(_)) => {
                let message = "too many jobs are on terminals: wait for one to end";
                return (Outcome::error(&CommandError::unavailable(message)), None);
            }
        };
        let tag = format!("{kind} {}", job.keys.name());
        let begun = Instant::now();
        // What is not waited for any more is not started; what is on its way already is killed as soon as it is there.
        let spawned = tokio::select! {
            biased;
            spawned = spawner.spawn(process, &tag) => spawned,
            () = job.control.killed() => {
                let error = CommandError::unavailable("killed while it was being started: it may have run for a moment");
                return (Outcome::told(State::Killed, &error), None);
            }
            () = job.late() => {
                let critical = "it was not started within its max_time, and may have run for a moment: where its program comes from does not answer";
                let outcome = Outcome::bare(State::Timeout, 1000 + 128 + libc::SIGKILL as u32);
                return (Outcome { critical: critical.into(), ..outcome }, None);
            }
        };
        match spawned {
            Ok(mut child) => {
                child.on_terminal = process.terminal.is_some();
                let left = job.envelope.max_time.map(|max| max.saturating_sub(begun.elapsed()));
                self.follow(job, child, left).await
            }
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
                let told = Outcome::told(State::Error, &error);
                (Outcome { streams: [String::new(), message], ..told }, None)
            }
        }
    }

    /// Follows a process to its end, which it comes to within the time that is left.
    pub(super) async fn follow(
        &self,
        job: &Job,
        mut child: Child,
        left: Option<Duration>,
    ) -> (Outcome, Option<Child>) {
        let handle = child.handle();
        let killed_before = {
            let mut asked = job.control.asked.lock();
            asked.process = Some((handle.clone(), child.pid));
            asked.killed
        };
        if killed_before {
            handle.signal(libc::SIGKILL).await;
        }
        let mut output = Output::new(self, job, &mut child).await;
        let mut deadline = pin!(sleep_until(Instant::now() + left.unwrap_or(NEVER)));
        let mut late = false;
        // In a container it has a number that is somebody else's out here.
        let watched = job.envelope.stats_interval.filter(|_| job.envelope.container.is_none());
        let mut used = pin!(look(watched.map(|pause| self.looks.watch(child.pid, pause))));
        let exit = loop {
            tokio::select! {
                exit = child.wait() => break exit,
                () = output.pass(), if output.is_open() => {}
                (watch, seen) = &mut used => {
                    if let Some((time, usage)) = seen {
                        output.tell(time, &usage).await;
                    }
                    used.set(look(watch));
                }
                () = &mut deadline, if !late => {
                    late = true;
                    handle.signal(libc::SIGKILL).await;
                }
            }
        };
        let killed = {
            let mut asked = job.control.asked.lock();
            (asked.process, asked.input) = (None, None);
            asked.killed
        };
        let heard = output.finish().await;
        let (state, code) = match exit {
            Some(Exit::Code(0)) if !late => (State::Success, 0),
            _ if late => (State::Timeout, 1000 + 128 + libc::SIGKILL as u32),
            Some(Exit::Code(code)) if killed => (State::Killed, 1000 + code as u32),
            Some(Exit::Code(code)) => (State::Error, 1000 + code as u32),
            Some(Exit::Signal(signal)) if killed => (State::Killed, 1000 + 128 + signal as u32),
            Some(Exit::Signal(signal)) => (State::Error, 1000 + 128 + signal as u32),
            Some(Exit::TooMany(_)) => (State::Error, 1000 + 128 + libc::SIGKILL as u32),
            None => (State::Error, Code::Unavailable.number()),
        };
        let critical = match exit {
            None if job.envelope.container.is_some() => {
                "its container ended, and this process with it".into()
            }
            None => "the spawner died, and this process with it".into(),
            Some(_) if late => "killed: it took longer than its max_time".into(),
            Some(Exit::TooMany(too_many)) => {
                format!("killed: {too_many}; limits.processes_each of core0.toml says how many")
            }
            Some(Exit::Code(_) | Exit::Signal(_)) => String::new(),
        };
        (Outcome { state, code, critical, ..heard }, Some(child))
    }
}

/// The next look of a watch; never, when nobody wants to know.
async fn look(watch: Option<Watch<'_>>) -> (Option<Watch<'_>>, Option<(u64, Usage)>) {
    let Some(mut watch) = watch else { return std::future::pending().await };
    let seen = watch.next().await;
    (Some(watch), seen)
}
