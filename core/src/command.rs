//! Commands: what a node can be told. One file a domain, one struct a command, all of them in [`COMMANDS`].
//!
//! The struct is the arguments (serde and schemars; its doc comments are the reference), [`Command::run`] does it. From
//! the table come the schema, COMMANDS.md and the typed layer of the Python client. `null` means absent at any depth, and
//! fields that nobody knows are ignored: clients are older and newer than their nodes.

mod bridge;
mod btrfs;
mod config;
mod container_net;
mod corex;
mod disk;
pub mod errand;
mod error;
mod filesystem;
mod flist;
mod info;
mod ip;
pub mod job;
mod logger;
mod nft;
mod node;
mod process;
mod service;
mod system;
mod table;

use std::pin::Pin;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

pub use error::{Code, CommandError};
pub use table::{COMMANDS, find};

use self::errand::{ForContainer, Inside};
use crate::argument::HardwareAddress;
use crate::context::Context;
use crate::process::Process;
use crate::sys::tool::ToolError;

/// What a caller must at least be to use a command. A greater role may do all that a smaller one may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, serde::Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Looks, and changes nothing.
    Read,
    /// Runs processes and changes what belongs to them.
    Operate,
    /// Changes the node itself.
    Admin,
}

/// A command that core0 carries out itself.
pub trait Command: DeserializeOwned + JsonSchema + Send + 'static {
    /// What clients call it, like `core.ping`.
    const NAME: &'static str;
    /// One sentence for the reference.
    const SUMMARY: &'static str;
    /// Who may use it.
    const ROLE: Role;
    /// Whether twice is the same as once: such a command runs again after the manager was killed below it.
    const IDEMPOTENT: bool;
    /// Whether it waits for nothing: such a command is answered on its way in.
    const AT_ONCE: bool = false;
    /// What it answers, as JSON of level 20.
    type Output: Serialize + JsonSchema;

    /// Does it.
    fn run(self, context: &Context) -> impl Future<Output = Result<Self::Output, CommandError>> + Send;
}

/// A command that is a process: its result is what the process printed and how it ended.
pub trait ProcessCommand: DeserializeOwned + JsonSchema + Send + 'static {
    /// What clients call it, like `core.system`.
    const NAME: &'static str;
    /// One sentence for the reference.
    const SUMMARY: &'static str;
    /// Who may use it.
    const ROLE: Role;

    /// The process to start.
    fn process(self) -> Result<Process, CommandError>;
}

/// A command at work, which answers JSON.
pub type Answering = Pin<Box<dyn Future<Output = Result<String, CommandError>> + Send>>;

/// How a command is carried out.
#[derive(Clone, Copy, Debug)]
pub enum Run {
    /// By core0 itself.
    Answer(fn(Value, Context) -> Result<Answering, CommandError>),
    /// By a process.
    Process(fn(Value) -> Result<Process, CommandError>),
}

/// A row of [`COMMANDS`].
#[derive(Debug)]
pub struct Entry {
    /// What clients call it.
    pub name: &'static str,
    /// One sentence for the reference.
    pub summary: &'static str,
    /// Who may use it.
    pub role: Role,
    /// Whether it may run again after the manager was killed below it.
    pub idempotent: bool,
    /// Whether it is answered on its way in; it can be made again then.
    pub at_once: bool,
    /// The schema of its arguments.
    pub arguments: fn(&mut SchemaGenerator) -> Schema,
    /// The schema of what it answers; processes answer none.
    pub output: Option<fn(&mut SchemaGenerator) -> Schema>,
    /// How it is carried out.
    pub run: Run,
    /// What becomes of it when it is for a container.
    pub for_container: ForContainer,
}

impl Entry {
    const fn answer<C: Command>() -> Self {
        Self {
            name: C::NAME,
            summary: C::SUMMARY,
            role: C::ROLE,
            idempotent: C::IDEMPOTENT,
            at_once: C::IDEMPOTENT && C::AT_ONCE,
            arguments: C::json_schema,
            output: Some(<C::Output as JsonSchema>::json_schema),
            run: Run::Answer(answer::<C>),
            for_container: ForContainer::Refused,
        }
    }

    /// What the node answers for a container.
    const fn both<C: Command>() -> Self {
        Self { for_container: ForContainer::Node, ..Self::answer::<C>() }
    }

    /// What a container carries out.
    const fn inside<C: Inside>() -> Self {
        Self { for_container: errand::for_container::<C>(), ..Self::answer::<C>() }
    }

    const fn process<C: ProcessCommand>() -> Self {
        Self {
            name: C::NAME,
            summary: C::SUMMARY,
            role: C::ROLE,
            idempotent: false,
            at_once: false,
            arguments: C::json_schema,
            output: None,
            run: Run::Process(process::<C>),
            // As one of its processes.
            for_container: ForContainer::Node,
        }
    }
}

fn answer<C: Command>(arguments: Value, context: Context) -> Result<Answering, CommandError> {
    let command: C = decode(C::NAME, arguments)?;
    Ok(Box::pin(async move {
        let output = command.run(&context).await?;
        serde_json::to_string(&output)
            .map_err(|e| CommandError::internal(format!("the answer of {} is not JSON", C::NAME)).because(e))
    }))
}

fn process<C: ProcessCommand>(arguments: Value) -> Result<Process, CommandError> {
    let process = decode::<C>(C::NAME, arguments)?.process()?;
    match process.fault() {
        Some(fault) => Err(CommandError::bad_request(format!("{}: {fault}", C::NAME))),
        None => Ok(process),
    }
}

fn decode<C: DeserializeOwned>(name: &str, mut arguments: Value) -> Result<C, CommandError> {
    forget_nulls(&mut arguments);
    if arguments.is_null() {
        arguments = Value::Object(serde_json::Map::new());
    }
    if !arguments.is_object() {
        return Err(CommandError::bad_request(format!("{name}: the arguments are no object")));
    }
    serde_path_to_error::deserialize(arguments).map_err(|e| {
        // `.` is all of them: what is missing names itself.
        let place = Some(e.path().to_string()).filter(|place| place != ".");
        let place = place.map_or_else(String::new, |place| format!("{place}: "));
        CommandError::bad_request(format!("{name}: {place}{}", e.inner()))
    })
}

/// Runs what waits for disks or for the kernel on a thread for that. A caller that goes away does not end it.
async fn blocking<T, E>(work: impl FnOnce() -> Result<T, E> + Send + 'static) -> Result<T, CommandError>
where
    T: Send + 'static,
    E: Into<CommandError> + Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(Into::into),
        Err(panic) => Err(CommandError::internal("the command ended in a defect of core0").because(panic)),
    }
}

/// What failed, by a tool; what the tool complained becomes `streams[1]` of the result.
fn tool_error(message: String, error: ToolError) -> CommandError {
    match &error {
        ToolError::Missing(_) => CommandError::not_acceptable(message).because(error),
        ToolError::TimedOut(..) => CommandError::unavailable(message).because(error),
        ToolError::Io(..) | ToolError::TooMuch(_) => CommandError::internal(message).because(error),
        ToolError::Failed { stderr, .. } => {
            let stderr = stderr.clone();
            CommandError::internal(message).with_stderr(stderr).because(error)
        }
    }
}

/// A hardware address that may be left to the kernel.
fn hardware_address(text: &str) -> Result<Option<[u8; 6]>, CommandError> {
    if text.is_empty() {
        return Ok(None);
    }
    let address: HardwareAddress = text.parse().map_err(CommandError::bad_request)?;
    Ok(Some(address.0))
}

/// Takes the fields out of every object that are `null`. The depth was bounded when the JSON was read.
fn forget_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, field| !field.is_null());
            fields.values_mut().for_each(forget_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(forget_nulls),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod domain_tests;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[derive(Debug, PartialEq, serde::Deserialize)]
    struct Arguments {
        path: String,
        #[serde(default)]
        mode: Option<String>,
        #[serde(default)]
        settings: std::collections::BTreeMap<String, String>,
    }

    #[test]
    fn null_is_absent_at_any_depth_and_unknown_fields_are_ignored() {
        let given =
            json!({"path": "/x", "mode": null, "settings": {"a": null, "b": "c"}, "newer": [1, null]});
        let read: Arguments = decode("test", given).unwrap();
        let settings = [("b".to_string(), "c".to_string())].into();
        assert_eq!(read, Arguments { path: "/x".into(), mode: None, settings });
    }

    #[test]
    fn absent_arguments_are_an_empty_object() {
        #[derive(serde::Deserialize)]
        struct Nothing {}
        decode::<Nothing>("test", Value::Null).unwrap();
    }

    #[test]
    fn wrong_arguments_name_the_command_and_the_fault() {
        for (given, said) in [
            (json!({}), "test: missing field `path`"),
            (json!({"path": null}), "test: missing field `path`"),
            (json!({"path": 7}), "test: path: invalid type: integer `7`, expected a string"),
            (
                json!({"path": "/x", "settings": {"a": 1}}),
                "test: settings.a: invalid type: integer `1`, expected a string",
            ),
            (json!([1]), "test: the arguments are no object"),
        ] {
            let error = decode::<Arguments>("test", given).unwrap_err();
            assert_eq!((error.code(), error.to_string().as_str()), (Code::BadRequest, said));
        }
    }
}
