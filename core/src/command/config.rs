//! `config.get`: how the node is set up.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Command, CommandError, Role};
use crate::config::Config;
use crate::context::Context;

/// `config.get`
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Get {}

impl Command for Get {
    const NAME: &'static str = "config.get";
    const SUMMARY: &'static str =
        "Returns how the node is set up; it has no secrets in it, only where they are.";
    const ROLE: Role = Role::Admin;
    const IDEMPOTENT: bool = true;
    const AT_ONCE: bool = true;
    type Output = Config;

    async fn run(self, context: &Context) -> Result<Config, CommandError> {
        Ok(context.node.config.clone())
    }
}
