//! `job.*`: commands that are being worked on.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Command, CommandError, Role};
use crate::context::Context;
use crate::job::{JobInfo, Usage};
use crate::log::now_ms;

/// A job, in the fields that old clients know.
#[derive(Debug, Serialize, JsonSchema)]
pub struct JobStat {
    /// `ID`, or `USER:ID` when it is a named user's.
    pub id: String,
    /// What its process uses.
    #[serde(flatten)]
    pub usage: Usage,
    /// When it was accepted, in ms since 1970.
    pub starttime: u64,
    /// The command as it was sent.
    pub cmd: Cmd,
    /// The process that runs for it now; 0 when there is none.
    pub pid: i32,
    /// How often its process was started again.
    pub restarts: u32,
}

/// A command as it was sent.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Cmd {
    /// Its id.
    pub id: String,
    /// Its name.
    pub command: String,
    /// Its arguments.
    pub arguments: Value,
    /// Its serial queue.
    pub queue: String,
    /// Its tags.
    pub tags: Vec<String>,
}

impl JobStat {
    /// The jobs that a caller may know of; one of them when an id is given.
    pub fn list(context: &Context, id: Option<&str>) -> Result<Vec<Self>, CommandError> {
        let jobs = &context.node.jobs;
        let infos = match id {
            Some(id) => vec![jobs.get(&context.caller, id)?.info()],
            None => jobs.list(&context.caller),
        };
        Ok(infos.into_iter().map(Self::new).collect())
    }

    fn new(info: JobInfo) -> Self {
        let age = now_ms().saturating_sub(info.started_ms);
        let envelope = info.envelope;
        Self {
            id: info.name,
            usage: info.pid.map(|pid| Usage::of(pid, age)).unwrap_or_default(),
            starttime: info.started_ms,
            pid: info.pid.unwrap_or(0),
            restarts: info.restarts,
            cmd: Cmd {
                id: envelope.id,
                command: envelope.command,
                arguments: envelope.arguments,
                queue: envelope.queue.unwrap_or_default(),
                tags: envelope.tags,
            },
        }
    }
}

fn terminate() -> i32 {
    libc::SIGTERM
}

/// `job.list`
#[derive(Debug, Deserialize, JsonSchema)]
pub struct List {
    /// Only this one.
    #[serde(default)]
    id: Option<String>,
}

impl Command for List {
    const NAME: &'static str = "job.list";
    const SUMMARY: &'static str = "Lists the commands that are being worked on.";
    const ROLE: Role = Role::Read;
    const IDEMPOTENT: bool = true;
    type Output = Vec<JobStat>;

    async fn run(self, context: &Context) -> Result<Self::Output, CommandError> {
        JobStat::list(context, self.id.as_deref())
    }
}

/// `job.kill`
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Kill {
    /// The job.
    id: String,
    /// The signal for its process and those of its group.
    #[serde(default = "terminate")]
    signal: i32,
}

impl Command for Kill {
    const NAME: &'static str = "job.kill";
    const SUMMARY: &'static str = "Sends a signal to a job; one without a process just ends.";
    const ROLE: Role = Role::Operate;
    const IDEMPOTENT: bool = false;
    type Output = bool;

    async fn run(self, context: &Context) -> Result<bool, CommandError> {
        context.node.jobs.kill(&context.caller, &self.id, self.signal).await?;
        Ok(true)
    }
}

/// `job.killall`
#[derive(Debug, Deserialize, JsonSchema)]
pub struct KillAll {
    /// The signal for their processes.
    #[serde(default = "terminate")]
    signal: i32,
}

impl Command for KillAll {
    const NAME: &'static str = "job.killall";
    const SUMMARY: &'static str =
        "Sends a signal to all jobs that the caller may touch, and says to how many.";
    const ROLE: Role = Role::Operate;
    const IDEMPOTENT: bool = false;
    type Output = usize;

    async fn run(self, context: &Context) -> Result<usize, CommandError> {
        context.node.jobs.kill_all(&context.caller, &context.id, self.signal).await
    }
}

/// `job.unschedule`
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Unschedule {
    /// The job.
    id: String,
}

impl Command for Unschedule {
    const NAME: &'static str = "job.unschedule";
    const SUMMARY: &'static str = "Lets a recurring job end after its present run.";
    const ROLE: Role = Role::Operate;
    const IDEMPOTENT: bool = true;
    type Output = bool;

    async fn run(self, context: &Context) -> Result<bool, CommandError> {
        context.node.jobs.unschedule(&context.caller, &self.id)?;
        Ok(true)
    }
}
