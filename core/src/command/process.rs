//! `process.*`: processes of the node, and the jobs that old clients call processes.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::errand::{Hand, Inside};
use super::job::JobStat;
use super::{Command, CommandError, Role, blocking};
use crate::context::Context;
use crate::domain::process::{self, Process, ProcessError};

impl From<ProcessError> for CommandError {
    fn from(error: ProcessError) -> Self {
        let message = error.to_string();
        match error {
            ProcessError::Gone(_) => CommandError::not_found(message),
            ProcessError::Protected(_) | ProcessError::NoSignal(_) => CommandError::bad_request(message),
            ProcessError::Signal(_, source) => CommandError::internal(message).because(source),
            ProcessError::List(source) => CommandError::internal(message).because(source),
        }
    }
}

/// What there is of a process: old clients ask for jobs, newer ones for processes.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Listed {
    /// Jobs.
    Jobs(Vec<JobStat>),
    /// Processes.
    Processes(Vec<Process>),
}

/// `process.list`
#[derive(Debug, Deserialize, JsonSchema)]
pub struct List {
    /// Only this job.
    #[serde(default)]
    id: Option<String>,
    /// Only this process; 0 is all processes of the node. Without it, jobs are listed.
    #[serde(default)]
    pid: Option<i64>,
}

impl Command for List {
    const NAME: &'static str = "process.list";
    const SUMMARY: &'static str = "Lists the jobs, as `job.list`; or the processes of the node, when `pid` is given, their arguments for administrators only.";
    const ROLE: Role = Role::Read;
    const IDEMPOTENT: bool = true;
    type Output = Listed;

    async fn run(self, context: &Context) -> Result<Listed, CommandError> {
        match (self.id, self.pid) {
            (Some(_), Some(_)) => {
                Err(CommandError::bad_request("process.list: id and pid are given: one is enough"))
            }
            (id, None) => Ok(Listed::Jobs(JobStat::list(context, id.as_deref()).await?)),
            (None, pid) => {
                let role = context.caller.role;
                blocking(move || processes(pid, role)).await
            }
        }
    }
}

impl Inside for List {
    /// Jobs are the node's.
    fn is_errand(arguments: &Value) -> bool {
        !arguments["pid"].is_null() && arguments["id"].is_null()
    }

    fn inside(self, hand: &mut Hand) -> Result<Listed, CommandError> {
        Ok(processes(self.pid, hand.role)?)
    }
}

/// One process, or all. Arguments tell what jobs of others do, and with what.
fn processes(pid: Option<i64>, role: Role) -> Result<Listed, ProcessError> {
    let mut list = process::list(pid.filter(|pid| *pid != 0))?;
    if role < Role::Admin {
        list.iter_mut().for_each(|found| found.cmdline = format!("[{}]", found.name));
    }
    Ok(Listed::Processes(list))
}

/// `process.kill`
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Kill {
    /// The job.
    #[serde(default)]
    id: Option<String>,
    /// The process.
    #[serde(default)]
    pid: Option<i64>,
    /// The signal.
    #[serde(default = "terminate")]
    signal: i32,
}

fn terminate() -> i32 {
    libc::SIGTERM
}

impl Command for Kill {
    const NAME: &'static str = "process.kill";
    const SUMMARY: &'static str = "Sends a signal to a job, or to a process of the node when `pid` is given.";
    const ROLE: Role = Role::Operate;
    const IDEMPOTENT: bool = false;
    type Output = bool;

    async fn run(self, context: &Context) -> Result<bool, CommandError> {
        match (self.id, self.pid) {
            (Some(id), None) => {
                context.own_job(&id)?;
                context.node.jobs.kill(&context.caller, &id, self.signal).await?;
            }
            (None, Some(pid)) => {
                let role = context.caller.role;
                blocking(move || kill(pid, self.signal, role)).await?;
            }
            (Some(_), Some(_)) | (None, None) => {
                return Err(CommandError::bad_request("process.kill: either id or pid is needed"));
            }
        }
        Ok(true)
    }
}

impl Inside for Kill {
    /// Jobs are the node's.
    fn is_errand(arguments: &Value) -> bool {
        List::is_errand(arguments)
    }

    fn inside(self, hand: &mut Hand) -> Result<bool, CommandError> {
        let pid = self.pid.ok_or_else(|| CommandError::bad_request("process.kill: no pid is given"))?;
        kill(pid, self.signal, hand.role)?;
        Ok(true)
    }
}

/// A process may be anybody's, a job's or the node's own.
fn kill(pid: i64, signal: i32, role: Role) -> Result<(), CommandError> {
    if role < Role::Admin {
        return Err(CommandError::forbidden("process.kill: a process by its pid is for administrators"));
    }
    Ok(process::kill(pid, i64::from(signal))?)
}
