//! `logger.*` and `core.subscribe`: output, live.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Command, CommandError, Role};
use crate::context::Context;
use crate::log::Tap;
use crate::wire::{Keys, is_name, logger_key};

/// Longest name of a source: `job USER:ID`, both as long as they may be.
const SOURCE_MAX: usize = 300;
/// Messages of the past that a new listener gets first, and how many it may ask for.
const BACKLOG: usize = 10;
const BACKLOG_MAX: u32 = 1000;

/// Where to read.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Stream {
    /// The key of a redis stream: read it with XREAD from 0.
    pub stream: String,
}

/// `core.subscribe`
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Subscribe {
    /// The job to listen to.
    id: String,
}

impl Command for Subscribe {
    const NAME: &'static str = "core.subscribe";
    const SUMMARY: &'static str = "Lets the output of a job go to a stream of the caller's, `stream:ID` of this command, after its last messages.";
    const ROLE: Role = Role::Read;
    const IDEMPOTENT: bool = false;
    type Output = Stream;

    async fn run(self, context: &Context) -> Result<Stream, CommandError> {
        let stream = Keys::new(context.caller.name(), &context.id).stream();
        context.node.jobs.subscribe(&context.caller, &self.id, &stream, BACKLOG)?;
        Ok(Stream { stream })
    }
}

/// `logger.subscribe`
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Listen {
    /// The name of the stream; listeners with the same name share it.
    #[serde(default)]
    queue: Option<String>,
    /// Which levels of messages; all when empty.
    #[serde(default)]
    levels: Vec<u16>,
    /// Whose messages, `job ID`, `service NAME` or `container NUMBER`; everybody's when absent.
    #[serde(default)]
    source: Option<String>,
    /// How many messages of the past come first, at most 1000; 10 when absent.
    #[serde(default)]
    backlog: Option<u32>,
}

impl Command for Listen {
    const NAME: &'static str = "logger.subscribe";
    const SUMMARY: &'static str = "Lets messages of all jobs and services go to a stream, `logger:QUEUE`.";
    const ROLE: Role = Role::Admin;
    const IDEMPOTENT: bool = true;
    type Output = Stream;

    async fn run(self, context: &Context) -> Result<Stream, CommandError> {
        let name = self.queue.as_deref().unwrap_or(&context.id);
        if !is_name(name) {
            return Err(CommandError::bad_request(format!("{name:?} cannot be the name of a stream")));
        }
        if self.source.as_ref().is_some_and(|source| source.len() > SOURCE_MAX) {
            return Err(CommandError::bad_request(format!("a source has at most {SOURCE_MAX} bytes")));
        }
        let backlog = self.backlog.map_or(BACKLOG, |backlog| backlog as usize);
        if self.backlog.is_some_and(|backlog| backlog > BACKLOG_MAX) {
            return Err(CommandError::bad_request(format!("a backlog has at most {BACKLOG_MAX} messages")));
        }
        let stream = logger_key(context.caller.name(), name);
        let tap = Tap { stream: stream.clone(), levels: self.levels, source: self.source.map(Into::into) };
        if !context.node.logs.listen(tap, backlog) {
            return Err(CommandError::unavailable(
                "too many listen: unsubscribe some with logger.unsubscribe",
            ));
        }
        Ok(Stream { stream })
    }
}

/// `logger.unsubscribe`
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Unlisten {
    /// The name of the stream.
    queue: String,
}

impl Command for Unlisten {
    const NAME: &'static str = "logger.unsubscribe";
    const SUMMARY: &'static str = "Ends what `logger.subscribe` began.";
    const ROLE: Role = Role::Admin;
    const IDEMPOTENT: bool = true;
    type Output = bool;

    async fn run(self, context: &Context) -> Result<bool, CommandError> {
        let stream = logger_key(context.caller.name(), &self.queue);
        Ok(context.node.logs.unlisten(&stream))
    }
}
