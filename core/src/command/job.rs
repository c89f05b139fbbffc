//! `job.*`: commands that are being worked on.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Command, CommandError, Role, blocking};
use crate::context::Context;
use crate::job::{Entry, Input, JobInfo, Usage};
use crate::log::now_ms;
use crate::process::Size;

/// A job, in the fields that old clients know.
#[derive(Debug, Serialize, JsonSchema)]
pub struct JobStat {
    /// `ID`, or `USER:ID` when it is a named user's.
    pub id: String,
    /// What its processes use.
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
    pub async fn list(context: &Context, id: Option<&str>) -> Result<Vec<Self>, CommandError> {
        let jobs = &context.node.jobs;
        let mut infos = match id {
            Some(id) => {
                context.own_job(id)?;
                vec![jobs.get(&context.caller, id)?.info()]
            }
            None => jobs.list(&context.caller),
        };
        if let Some(container) = &context.container {
            infos.retain(|info| info.envelope.container == Some(container.id));
        }
        let groups: Vec<i32> = infos.iter().filter_map(|info| info.pid).collect();
        let mut used = blocking(move || Ok::<_, CommandError>(Usage::of_groups(&groups))).await?;
        let stat = |info: JobInfo| {
            let usage = info.pid.and_then(|pid| used.remove(&pid)).unwrap_or_default();
            Self::new(info, usage)
        };
        Ok(infos.into_iter().map(stat).collect())
    }

    fn new(info: JobInfo, usage: Usage) -> Self {
        let age = now_ms().saturating_sub(info.started_ms);
        let envelope = info.envelope;
        Self {
            id: info.name,
            usage: usage.since(age),
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
        JobStat::list(context, self.id.as_deref()).await
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

/// `job.input`
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Type {
    /// The job.
    id: String,
    /// What is typed.
    #[serde(default)]
    data: Option<String>,
    /// The new size.
    #[serde(default)]
    terminal: Option<Size>,
}

impl Command for Type {
    const NAME: &'static str = "job.input";
    const SUMMARY: &'static str = "Types on the terminal of a job, or changes its size. Send them with one `queue`, which keeps their order; the administrator can push to the list `input:ID` instead.";
    const ROLE: Role = Role::Operate;
    const IDEMPOTENT: bool = false;
    type Output = bool;

    async fn run(self, context: &Context) -> Result<bool, CommandError> {
        context.node.jobs.get(&context.caller, &self.id)?;
        if self.terminal.is_none() && self.data.is_none() {
            return Err(CommandError::bad_request("job.input: neither data nor the size of a terminal"));
        }
        let entries = [self.terminal.map(Input::Size), self.data.map(|data| Input::Data { data })];
        for entry in entries.into_iter().flatten() {
            context.node.jobs.input(&context.caller, &self.id, entry)?;
        }
        Ok(true)
    }
}

/// `aggregator.query`
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Query {
    /// Only this key.
    #[serde(default)]
    key: Option<String>,
    /// Only what has all of these tags.
    #[serde(default)]
    tags: BTreeMap<String, String>,
}

impl Command for Query {
    const NAME: &'static str = "aggregator.query";
    const SUMMARY: &'static str = "Gives the statistics of jobs: what they printed as messages of level 10, `KEY:VALUE|A` (values) or `|D` (something that grows) and perhaps `|TAG=VALUE,...`, and what those with a `stats_interval` used. A span that is over goes to the stream `statistics:300` or `statistics:3600`.";
    const ROLE: Role = Role::Read;
    const IDEMPOTENT: bool = true;
    const AT_ONCE: bool = true;
    type Output = Vec<Entry>;

    async fn run(self, context: &Context) -> Result<Self::Output, CommandError> {
        Ok(context.node.jobs.statistics(&context.caller, self.key.as_deref(), &self.tags))
    }
}
