//! What a command may use: its caller, and the node.

use std::sync::Arc;

use crate::command::Role;
use crate::config::Config;
use crate::domain::Domains;
use crate::paths::Paths;

/// The node, as its commands see it. One per process, shared.
#[derive(Debug)]
pub struct Node {
    /// Where its files are.
    pub paths: Paths,
    /// How it is set up.
    pub config: Config,
    /// What its domains keep from one command to the next.
    pub domains: Domains,
}

/// Who sent a command. redis keeps users apart by the keys they may write, so the key that a command came from tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// `default`, or a name of the configuration.
    pub user: String,
    /// What it may do.
    pub role: Role,
}

/// One run of a command.
#[derive(Clone, Debug)]
pub struct Context {
    /// The id of the command, which names its job, result and stream.
    pub id: String,
    /// Who sent it.
    pub caller: Caller,
    /// What it runs on.
    pub node: Arc<Node>,
}
