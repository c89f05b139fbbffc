//! What a command may use: its caller, and the node.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::watch;

use crate::boot::bootstrap;
use crate::command::{CommandError, Role};
use crate::config::Config;
use crate::domain::Domains;
use crate::domain::container::{Container, Containers};
use crate::domain::filesystem::Files;
use crate::job::Jobs;
use crate::log::Logs;
use crate::paths::Paths;
use crate::service::Services;

/// The node, as its commands see it. One per process, shared.
#[derive(Debug)]
pub struct Node {
    /// Where its files are.
    pub paths: Paths,
    /// How it is set up.
    pub config: Config,
    /// What its domains keep from one command to the next.
    pub domains: Domains,
    /// Its containers.
    pub containers: Arc<Containers>,
    /// What it works on.
    pub jobs: Jobs,
    /// What it keeps running.
    pub services: Services,
    /// What it has to say.
    pub logs: Arc<Logs>,
    /// Since when.
    pub began: Instant,
    /// What a machine knows of its bootstrap file.
    pub bootstrap: Option<watch::Receiver<bootstrap::follow::State>>,
    /// Whether it is a machine, below `core0 init`: only such a node can be rebooted.
    pub machine: bool,
}

impl Node {
    /// Where flists come from too, as the bootstrap file says.
    pub fn told_sources(&self) -> Vec<String> {
        let document = self.bootstrap.as_ref().and_then(|state| state.borrow().document.clone());
        let sources = document.iter().flat_map(|document| &document.sources);
        sources.map(|source| source.0.clone()).collect()
    }
}

/// Who sent a command. redis keeps users apart by the keys they may write, so the key that a command came from tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// `default`, or a name of the configuration.
    pub user: String,
    /// What it may do.
    pub role: Role,
}

impl Caller {
    /// The administrator, who owns the password of redis' user `default`.
    pub fn admin() -> Self {
        Self { user: ADMIN.into(), role: Role::Admin }
    }

    /// The part of keys that is its own; the administrator's have none.
    pub fn name(&self) -> Option<&str> {
        Some(self.user.as_str()).filter(|user| *user != ADMIN)
    }

    /// Whether it may see and change what belongs to another.
    pub fn may_touch(&self, owner: &Self) -> bool {
        self.role == Role::Admin || self.user == owner.user
    }
}

/// The user that is in no configuration.
pub const ADMIN: &str = "default";

/// One run of a command.
#[derive(Clone, Debug)]
pub struct Context {
    /// The id of the command, which names its job, result and stream.
    pub id: String,
    /// Who sent it.
    pub caller: Caller,
    /// What it runs on.
    pub node: Arc<Node>,
    /// The container that it is for, when the node answers for one.
    pub container: Option<Arc<Container>>,
}

impl Context {
    /// The files that callers hold open there.
    pub fn files(&self) -> &Arc<Files> {
        self.container.as_ref().map_or(&self.node.domains.files, |container| &container.errands.files)
    }

    /// Refuses a job of the node, or of another container, to one for a container.
    pub fn own_job(&self, id: &str) -> Result<(), CommandError> {
        let Some(container) = &self.container else { return Ok(()) };
        match self.node.jobs.get(&self.caller, id)?.info().envelope.container {
            Some(other) if other == container.id => Ok(()),
            Some(_) | None => Err(CommandError::not_found(format!("no job {id} runs in this container"))),
        }
    }
}
