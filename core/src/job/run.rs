//! Carrying a job out: its turn, its runs, its one result.

use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::FutureExt;
use tokio::sync::oneshot;

use super::errand;
use super::outcome::{Outcome, encode};
use super::serial::Turn;
use super::{Job, Jobs};
use crate::command::errand::{Errand, ForContainer};
use crate::command::{Answering, CommandError, Run};
use crate::context::{Context, Node};
use crate::log::now_ms;
use crate::process::{Inside, Process};
use crate::queue::Note;
use crate::spawner::{Child, Spawner};
use crate::wire::{JobResult, State};

/// A command that core0 carries out itself takes a while if it takes longer.
const SOON: Duration = Duration::from_millis(20);
/// How long a process that failed waits to be started again.
const RESTART: Duration = Duration::from_secs(1);

/// What a job does first.
#[derive(Debug)]
pub enum First {
    /// It runs.
    Run,
    /// It follows the process that an earlier manager had started, again for so many times.
    Follow(Child, u32),
    /// It follows such a process in a container, when that tells of it.
    Late(Late),
    /// It waits for its next run. What its last one came to died with an earlier manager.
    Pause,
}

/// The process that an earlier manager had started for a job in a container, unless there is none.
#[derive(Debug)]
pub struct Late {
    pub child: oneshot::Receiver<Child>,
    /// How often it was started again.
    pub restarts: u32,
    /// Whether it was not run again before.
    pub first_time: bool,
}

impl First {
    /// What a job of an earlier manager does whose process is gone, or never was; none when it is over.
    pub(super) fn without_process(job: &Job, first_time: bool) -> Option<Self> {
        match job.envelope.recurring_period {
            Some(_) => Some(Self::Pause),
            None => (job.entry.idempotent && first_time).then_some(Self::Run),
        }
    }
}

/// How a job ends that an earlier manager took along.
pub(super) fn interrupted(job: &Job) -> Outcome {
    let message = format!("interrupted: core0 was restarted while {} ran", job.entry.name);
    Outcome::error(&CommandError::unavailable(message))
}

impl Jobs {
    /// Carries a job out and answers it, whatever happens on the way.
    pub(super) async fn carry_out(node: Arc<Node>, job: Arc<Job>, turn: Option<Turn>, first: First) {
        let jobs = &node.jobs;
        let begun = tokio::time::Instant::now();
        let runs = AssertUnwindSafe(jobs.runs(&node, &job, turn, first)).catch_unwind();
        let (outcome, child) = runs.await.unwrap_or_else(|_| {
            let error = CommandError::internal(format!("{} panicked: see the log", job.entry.name));
            (Outcome::error(&error), None)
        });
        let time = begun.elapsed().as_millis() as u64;
        let streams = std::mem::take(&mut *job.streams.lock());
        for stream in &streams {
            jobs.parts.publisher.end(stream, outcome.state).await;
        }
        jobs.answer(&job, outcome, time, child).await;
        jobs.remembered.lock().put(job.keys.name().into());
        jobs.remove(&job);
    }

    async fn answer(&self, job: &Job, outcome: Outcome, time: u64, child: Option<Child>) {
        let result = JobResult {
            starttime: job.started_ms,
            time,
            tags: job.envelope.tags.clone(),
            container: job.envelope.container.unwrap_or(0).into(),
            ..outcome.result(&job.envelope.id, &job.envelope.command)
        };
        let (ticket, keys) = (job.ticket.clone(), job.keys.clone());
        let (json, begun) = (encode(result), job.has_begun());
        let restarted = job.ticket.resumed || job.control.restarts.load(Ordering::Relaxed) > 0;
        let note = Note::Answer { ticket, keys, json, begun, restarted, child };
        // The receiver outlives every job.
        let _ = self.parts.answers.send(note).await;
    }

    /// Its outcome, and the last of its processes, which the spawner keeps until the job is answered.
    async fn runs(
        &self,
        node: &Arc<Node>,
        job: &Job,
        turn: Option<Turn>,
        first: First,
    ) -> (Outcome, Option<Child>) {
        let told = || Outcome::told(State::Killed, &CommandError::unavailable("killed before it ran"));
        let killed = || (told(), None);
        let mut turn = turn;
        if let Some(turn) = &mut turn {
            tokio::select! {
                () = turn.come() => {}
                () = job.control.killed() => return killed(),
            }
        }
        let _permit = match job.entry.run {
            Run::Answer(_) => None,
            Run::Process(_) => tokio::select! {
                permit = self.processes.acquire() => permit.ok(),
                () = job.control.killed() => return killed(),
            },
        };
        let first = match first {
            First::Late(late) => match late_child(job, late).await {
                Ok(first) => first,
                Err(outcome) => return (outcome, None),
            },
            first => first,
        };
        let mut restarts = 0;
        let mut child = match first {
            First::Run | First::Late(_) => None,
            First::Follow(child, count) => {
                restarts = count;
                job.control.restarts.store(count, Ordering::Relaxed);
                Some(child)
            }
            First::Pause => {
                tokio::select! {
                    () = tokio::time::sleep(job.envelope.recurring_period.unwrap_or_default()) => None,
                    () = job.control.killed() => return killed(),
                    () = job.control.stopped() => return (Outcome::bare(State::Success, 0), None),
                }
            }
        };
        loop {
            let (outcome, ended) = match child.take() {
                Some(child) => {
                    let age = Duration::from_millis(now_ms().saturating_sub(child.started_ms));
                    self.follow(job, child, job.envelope.max_time.map(|max| max.saturating_sub(age))).await
                }
                None => self.once(node, job).await,
            };
            let pause = match (outcome.state, job.envelope.recurring_period) {
                (State::Killed, _) => return (outcome, ended),
                (State::Error | State::Timeout, _) if restarts < job.envelope.max_restart => {
                    restarts += 1;
                    job.control.restarts.fetch_add(1, Ordering::Relaxed);
                    self.tell(Note::Restarts { ticket: job.ticket.clone(), count: restarts }).await;
                    RESTART
                }
                // There is nowhere to run it again.
                (_, Some(_)) if job.envelope.container.is_some_and(|id| node.containers.get(id).is_err()) => {
                    return (outcome, ended);
                }
                (_, Some(period)) => {
                    if restarts > 0 {
                        restarts = 0;
                        self.tell(Note::Restarts { ticket: job.ticket.clone(), count: 0 }).await;
                    }
                    period
                }
                (_, None) => return (outcome, ended),
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = job.control.stopped() => return (outcome, ended),
            }
        }
    }

    async fn once(&self, node: &Arc<Node>, job: &Job) -> (Outcome, Option<Child>) {
        let arguments = job.envelope.arguments.clone();
        let container = match job.envelope.container.map(|id| node.containers.get(id)).transpose() {
            Ok(container) => container,
            Err(error) => return (Outcome::error(&error.into()), None),
        };
        match job.entry.run {
            Run::Process(process) => match process(arguments).and_then(|process| enter(node, job, process)) {
                Ok((process, spawner)) => self.start(job, &process, &spawner).await,
                Err(error) => (Outcome::error(&error), None),
            },
            Run::Answer(answer) => {
                let context = Context {
                    id: job.envelope.id.clone(),
                    caller: job.caller.clone(),
                    node: node.clone(),
                    container: container.clone(),
                };
                let answering = match (container, job.entry.for_container) {
                    (None, _) | (Some(_), ForContainer::Node) => answer(arguments, context),
                    (Some(container), ForContainer::Errand { is_errand, on_file, .. }) => {
                        match is_errand(&arguments) {
                            true => {
                                let (command, role) = (job.entry.name.into(), job.caller.role);
                                Ok(errand::go(container, Errand { command, arguments, role }, on_file))
                            }
                            false => answer(arguments, context),
                        }
                    }
                    (Some(_), ForContainer::Refused) => Err(CommandError::not_acceptable(format!(
                        "{} is about the node: a container cannot carry it out",
                        job.entry.name
                    ))),
                };
                let outcome = match answering {
                    Ok(answering) => self.await_answer(job, answering).await,
                    Err(error) => Outcome::error(&error),
                };
                (outcome, None)
            }
        }
    }

    async fn await_answer(&self, job: &Job, answering: Answering) -> Outcome {
        let told = |state, message: &str| Outcome::told(state, &CommandError::unavailable(message));
        let mut answering = answering;
        let (mut late, mut killed) = (pin!(job.late()), pin!(job.control.killed()));
        loop {
            tokio::select! {
                biased;
                answer = &mut answering => return match answer {
                    Ok(json) => Outcome::answer(json),
                    Err(error) => Outcome::error(&error),
                },
                () = &mut killed => return told(State::Killed, "killed while it ran"),
                () = &mut late => return told(State::Timeout, "it took longer than its max_time"),
                // Most are answered before, and their flag comes with the answer.
                () = tokio::time::sleep(SOON), if !job.has_begun() => self.tell_begun(job).await,
            }
        }
    }

    /// Has redis say that the job is there.
    pub(super) async fn tell_begun(&self, job: &Job) {
        job.control.begun.store(true, Ordering::Relaxed);
        self.tell(Note::Begin { ticket: job.ticket.clone(), keys: job.keys.clone() }).await;
    }
}

/// What a job does first whose process a container tells of; or how it ended before.
async fn late_child(job: &Job, late: Late) -> Result<First, Outcome> {
    let Late { child, restarts, first_time } = late;
    tokio::select! {
        child = child => match child {
            Ok(child) => Ok(First::Follow(child, restarts)),
            Err(_) => First::without_process(job, first_time).ok_or_else(|| interrupted(job)),
        },
        () = job.control.killed() => Err(Outcome::told(State::Killed, &CommandError::unavailable("killed before it ran"))),
        () = job.late() => Err(Outcome::told(
            State::Timeout,
            &CommandError::unavailable("its container did not tell of it within its max_time"),
        )),
    }
}

/// Where a process is to be started: on the node, or in a container, as its root, with its variables and in its folder.
fn enter(node: &Node, job: &Job, process: Process) -> Result<(Process, Spawner), CommandError> {
    let Some(id) = job.envelope.container else {
        let processes = Some(node.jobs.processes_each);
        return Ok((Process { processes, ..process }, node.jobs.parts.spawner.clone()));
    };
    let container = node.containers.get(id)?;
    let env = container.env().into_iter().chain(process.env).collect();
    let dir = if process.dir.is_empty() { container.wanted.workdir().to_owned() } else { process.dir };
    Ok((Process { env, dir, inside: Some(Inside::default()), ..process }, container.spawner.clone()))
}
