//! Processes, whoever starts them, a job or a service: what they are started with, and what they print.

mod drain;
pub mod level;
mod messages;
mod metric;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::io::unix::AsyncFd;

pub use drain::drain;
pub use messages::{Message, Messages};
pub use metric::{Aggregation, Metric};

/// A descriptor that says when it can be read or written.
pub fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd is one open file as long as it lives.
    Ok(unsafe { AsyncFd::register(fd) }?)
}

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
    /// Most processes and threads of it and all that it starts; no bound when absent, as inside of a container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processes: Option<u64>,
    /// It has a terminal of this size; its three streams are that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminal: Option<Size>,
}

/// The size of a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Size {
    /// Lines.
    pub rows: u16,
    /// Letters in a line.
    pub cols: u16,
}

impl Size {
    /// Whether a terminal can be that large.
    pub fn is_sound(self) -> bool {
        (1..=SIDE).contains(&self.rows) && (1..=SIDE).contains(&self.cols)
    }
}

impl From<Size> for rustix::termios::Winsize {
    fn from(size: Size) -> Self {
        Self { ws_row: size.rows, ws_col: size.cols, ws_xpixel: 0, ws_ypixel: 0 }
    }
}

/// Longest side of a terminal.
const SIDE: u16 = 4096;

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
/// Longest of them: `MAX_ARG_STRLEN` without its NUL (execve(2)). Of a variable, with its name and `=`.
const LENGTH: usize = (128 << 10) - 1;
/// Longest path: `PATH_MAX` without its NUL (path_resolution(7)).
const PATH_LENGTH: usize = 4095;

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
        let variables = self.env.iter().map(|(name, value)| name.len() + 1 + value.len());
        if let Some(length) =
            self.argv.iter().map(String::len).chain(variables).find(|&length| length > LENGTH)
        {
            return Some(format!(
                "an argument or a variable has {length} bytes, the kernel passes {LENGTH}: use the standard input"
            ));
        }
        if self.dir.len() > PATH_LENGTH {
            return Some(format!(
                "the folder has {} bytes, a path has at most {PATH_LENGTH}",
                self.dir.len()
            ));
        }
        if self.terminal.is_some_and(|size| !size.is_sound()) {
            return Some(format!("a terminal has 1 to {SIDE} rows and columns"));
        }
        if self.terminal.is_some() && !self.stdin.is_empty() {
            return Some("a process on a terminal has no other standard input".into());
        }
        if let Some(name) = self.env.keys().find(|name| name.is_empty() || name.contains('=')) {
            return Some(format!("{name:?} is no name of a variable"));
        }
        None
    }
}
