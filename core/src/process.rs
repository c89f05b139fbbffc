//! Processes, whoever starts them, a job or a service: what they are started with, and what they print.

mod drain;
pub mod level;
mod messages;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use drain::drain;
pub use messages::{Message, Messages};

/// A process to start. Its program is looked up in `PATH`, and no shell sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Program and arguments, at least one.
    pub argv: Vec<String>,
    /// Variables on top of the node's own.
    pub env: BTreeMap<String, String>,
    /// Folder to start in; empty is `/`.
    pub dir: String,
    /// Whom it runs as in a container, where it has no variables but its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inside: Option<Inside>,
    /// All that it reads from its standard input. It travels apart from the rest.
    #[serde(skip)]
    pub stdin: Vec<u8>,
}

/// The ids of a process in a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inside {
    /// Its user.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Its other groups.
    pub groups: Vec<u32>,
}

/// Most arguments and variables of a process, each.
const COUNT: usize = 4096;

impl Process {
    /// What is wrong with it, before anything is started.
    pub fn fault(&self) -> Option<String> {
        let strings = || self.argv.iter().chain(self.env.keys()).chain(self.env.values());
        if self.argv.first().is_none_or(|name| name.is_empty()) {
            return Some("the name of the program is empty".into());
        }
        if self.argv.len() > COUNT || self.env.len() > COUNT {
            return Some(format!("more than {COUNT} arguments or variables"));
        }
        if strings().chain([&self.dir]).any(|s| s.contains('\0')) {
            return Some("an argument, a variable or the folder has a NUL in it".into());
        }
        if let Some(name) = self.env.keys().find(|name| name.is_empty() || name.contains('=')) {
            return Some(format!("{name:?} is no name of a variable"));
        }
        None
    }
}
