//! `service.*`: what the node keeps running.

use std::collections::{BTreeMap, HashMap};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Command, CommandError, Role};
use crate::context::Context;
use crate::service::Status;

/// Most messages that are asked for at once.
const LOGS_MAX: usize = 2000;

fn hundred() -> usize {
    100
}

/// `service.list`
#[derive(Debug, Deserialize, JsonSchema)]
pub struct List {}

impl Command for List {
    const NAME: &'static str = "service.list";
    const SUMMARY: &'static str = "Lists all services and what they are doing.";
    const ROLE: Role = Role::Read;
    const IDEMPOTENT: bool = true;
    const AT_ONCE: bool = true;
    type Output = BTreeMap<String, Status>;

    async fn run(self, context: &Context) -> Result<Self::Output, CommandError> {
        Ok(context.node.services.list())
    }
}

/// `service.status`
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Show {
    /// The service.
    name: String,
}

impl Command for Show {
    const NAME: &'static str = "service.status";
    const SUMMARY: &'static str = "Says what a service is doing.";
    const ROLE: Role = Role::Read;
    const IDEMPOTENT: bool = true;
    const AT_ONCE: bool = true;
    type Output = Status;

    async fn run(self, context: &Context) -> Result<Status, CommandError> {
        context.node.services.status(&self.name)
    }
}

/// `service.start`
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Start {
    /// The service.
    name: String,
}

impl Command for Start {
    const NAME: &'static str = "service.start";
    const SUMMARY: &'static str = "Lets a service run; it starts when what it comes after is ready.";
    const ROLE: Role = Role::Admin;
    const IDEMPOTENT: bool = true;
    type Output = Status;

    async fn run(self, context: &Context) -> Result<Status, CommandError> {
        context.node.services.start(&self.name).await?;
        context.node.services.status(&self.name)
    }
}

/// `service.stop`
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Stop {
    /// The service.
    name: String,
}

impl Command for Stop {
    const NAME: &'static str = "service.stop";
    const SUMMARY: &'static str = "Stops a service; answers when it is stopped.";
    const ROLE: Role = Role::Admin;
    const IDEMPOTENT: bool = true;
    type Output = Status;

    async fn run(self, context: &Context) -> Result<Status, CommandError> {
        context.node.services.stop(&self.name).await?;
        context.node.services.status(&self.name)
    }
}

/// `service.restart`
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Restart {
    /// The service.
    name: String,
}

impl Command for Restart {
    const NAME: &'static str = "service.restart";
    const SUMMARY: &'static str = "Stops a service and lets it run again.";
    const ROLE: Role = Role::Admin;
    const IDEMPOTENT: bool = false;
    type Output = Status;

    async fn run(self, context: &Context) -> Result<Status, CommandError> {
        context.node.services.restart(&self.name).await?;
        context.node.services.status(&self.name)
    }
}

/// `service.reload`
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Reload {}

impl Command for Reload {
    const NAME: &'static str = "service.reload";
    const SUMMARY: &'static str = "Reads the units again: new ones start, missing ones stop, changed ones count from their next start on.";
    const ROLE: Role = Role::Admin;
    const IDEMPOTENT: bool = true;
    type Output = BTreeMap<String, Status>;

    async fn run(self, context: &Context) -> Result<Self::Output, CommandError> {
        let services = &context.node.services;
        let reloaded = services.reload(&mut HashMap::new()).await;
        reloaded.map_err(|e| CommandError::internal("cannot read the units").because(e))?;
        Ok(services.list())
    }
}

/// `service.logs`
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Logs {
    /// The service.
    name: String,
    /// So many messages at most.
    #[serde(default = "hundred")]
    lines: usize,
}

/// A message.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Line {
    /// When, in ms since 1970.
    time: u64,
    /// How it is meant.
    level: u16,
    /// What.
    text: String,
}

impl Command for Logs {
    const NAME: &'static str = "service.logs";
    const SUMMARY: &'static str = "Gives the last messages of a service, oldest first.";
    const ROLE: Role = Role::Read;
    const IDEMPOTENT: bool = true;
    type Output = Vec<Line>;

    async fn run(self, context: &Context) -> Result<Vec<Line>, CommandError> {
        let records = context.node.services.logs(&self.name, self.lines.min(LOGS_MAX))?;
        let line = |record: crate::log::Record| Line {
            time: record.time,
            level: record.level,
            text: record.text.to_string(),
        };
        Ok(records.into_iter().map(line).collect())
    }
}
