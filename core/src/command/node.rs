//! `core.*`: the node itself.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Command, CommandError, Role};
use crate::boot::bootstrap::follow::Shown;
use crate::context::Context;
use crate::job::Usage;
use crate::schema;

/// `core.ping`
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Ping {}

impl Command for Ping {
    const NAME: &'static str = "core.ping";
    const SUMMARY: &'static str = "Answers `PONG` and the version.";
    const ROLE: Role = Role::Read;
    const IDEMPOTENT: bool = true;
    const AT_ONCE: bool = true;
    type Output = String;

    async fn run(self, _context: &Context) -> Result<String, CommandError> {
        Ok(concat!("PONG ", env!("CARGO_PKG_VERSION")).to_string())
    }
}

/// How long the spawner may take to say what it has done.
const SPAWNER: Duration = Duration::from_secs(2);

/// What the manager uses, and what the node has dealt with.
#[derive(Debug, Serialize, JsonSchema)]
pub struct NodeState {
    /// What the manager itself uses.
    #[serde(flatten)]
    usage: Usage,
    /// How many processes were reaped that jobs and services had left behind; absent when the spawner is busy.
    #[serde(skip_serializing_if = "Option::is_none")]
    orphans: Option<u64>,
    /// How many commands were dropped since the manager started because their id was there already.
    duplicates: u64,
    /// How much was dropped since then that was no command with an id: nobody could be answered.
    unreadable: u64,
    /// What a machine knows of its bootstrap file.
    #[serde(skip_serializing_if = "Option::is_none")]
    bootstrap: Option<Shown>,
}

/// `core.state`
#[derive(Debug, Deserialize, JsonSchema)]
pub struct State {}

impl Command for State {
    const NAME: &'static str = "core.state";
    const SUMMARY: &'static str = "Says what the manager itself uses, how many processes were reaped that others left behind, how many commands were \
         dropped, and of a machine what its bootstrap file says.";
    const ROLE: Role = Role::Read;
    const IDEMPOTENT: bool = true;
    type Output = NodeState;

    async fn run(self, context: &Context) -> Result<NodeState, CommandError> {
        let age = context.node.began.elapsed().as_millis() as u64;
        let orphans = context.node.jobs.orphans(SPAWNER).await;
        let bootstrap = context.node.bootstrap.as_ref().map(|known| known.borrow().shown.clone());
        let (duplicates, unreadable) = context.node.jobs.dropped();
        let usage = Usage::of(std::process::id() as i32).since(age);
        Ok(NodeState { usage, orphans, duplicates, unreadable, bootstrap })
    }
}

/// `system.commands`
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Commands {}

impl Command for Commands {
    const NAME: &'static str = "system.commands";
    const SUMMARY: &'static str = "Describes all commands: roles, arguments and answers as JSON schemas.";
    const ROLE: Role = Role::Read;
    const IDEMPOTENT: bool = true;
    const AT_ONCE: bool = true;
    type Output = serde_json::Value;

    async fn run(self, _context: &Context) -> Result<serde_json::Value, CommandError> {
        Ok(schema::document())
    }
}

/// `core.reboot`
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Reboot {}

impl Command for Reboot {
    const NAME: &'static str = "core.reboot";
    const SUMMARY: &'static str =
        "Ends everything in order and starts the machine again, a second after the answer.";
    const ROLE: Role = Role::Admin;
    const IDEMPOTENT: bool = false;
    type Output = ();

    async fn run(self, context: &Context) -> Result<(), CommandError> {
        tell_init(context, libc::SIGTERM)
    }
}

/// `core.poweroff`
#[derive(Debug, Deserialize, JsonSchema)]
pub struct PowerOff {}

impl Command for PowerOff {
    const NAME: &'static str = "core.poweroff";
    const SUMMARY: &'static str =
        "Ends everything in order and switches the machine off, a second after the answer.";
    const ROLE: Role = Role::Admin;
    const IDEMPOTENT: bool = false;
    type Output = ();

    async fn run(self, context: &Context) -> Result<(), CommandError> {
        tell_init(context, libc::SIGUSR2)
    }
}

/// How long the client has to read the answer: redis ends with all else.
const LAST_ANSWER: Duration = Duration::from_secs(1);

/// PID 1 does it: it asks the manager to end first.
fn tell_init(context: &Context, signal: i32) -> Result<(), CommandError> {
    if !context.node.machine {
        let message = "this node is no machine: core0 runs below something else than `core0 init`";
        return Err(CommandError::not_acceptable(message));
    }
    let tell = |signal| {
        // SAFETY: no pointers; PID 1 is `core0 init`, as `machine` says.
        match unsafe { libc::kill(1, signal) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    };
    // Signal 0 only asks whether it could be told.
    tell(0).map_err(|error| CommandError::internal("PID 1 cannot be told").because(error))?;
    tokio::spawn(async move {
        tokio::time::sleep(LAST_ANSWER).await;
        if let Err(error) = tell(signal) {
            tracing::error!("PID 1 cannot be told: {error}");
        }
    });
    Ok(())
}
