//! `core.*`: the node itself.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Command, CommandError, Role};
use crate::context::Context;

/// `core.ping`
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Ping {}

impl Command for Ping {
    const NAME: &'static str = "core.ping";
    const SUMMARY: &'static str = "Answers `PONG` and the version.";
    const ROLE: Role = Role::Read;
    const IDEMPOTENT: bool = true;
    type Output = String;

    async fn run(self, _context: &Context) -> Result<String, CommandError> {
        Ok(concat!("PONG ", env!("CARGO_PKG_VERSION")).to_string())
    }
}
