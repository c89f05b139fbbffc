//! `core.system` and `bash`: a process of the caller's.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{CommandError, ProcessCommand, Role};
use crate::process::{Process, Size};

/// `core.system`
#[derive(Debug, Deserialize, JsonSchema)]
pub struct System {
    /// The program, looked up in `PATH`.
    name: String,
    /// Its arguments.
    #[serde(default)]
    args: Vec<String>,
    /// Folder to start in; when empty `/`, or in a container its `workdir`.
    #[serde(default)]
    dir: String,
    /// Variables on top of the node's own.
    #[serde(default)]
    env: BTreeMap<String, String>,
    /// What it reads from its standard input.
    #[serde(default)]
    stdin: String,
    /// Gives it a terminal of this size. What it prints comes as it is in the stream of the job, which needs `stream`;
    /// `job.input` types. Such a job does not outlive the manager. The administrator can also push to the list `input:ID`:
    /// `{"data": TEXT}` is typed, `{"rows": N, "cols": N}` is the new size.
    #[serde(default)]
    terminal: Option<Size>,
}

impl ProcessCommand for System {
    const NAME: &'static str = "core.system";
    const SUMMARY: &'static str = "Runs a program, without a shell.";
    const ROLE: Role = Role::Operate;

    fn process(self) -> Result<Process, CommandError> {
        let argv = [vec![self.name], self.args].concat();
        Ok(Process {
            argv,
            env: self.env,
            dir: self.dir,
            stdin: self.stdin.into_bytes(),
            terminal: self.terminal,
            ..Process::default()
        })
    }
}

/// `bash`
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Bash {
    /// The script.
    script: String,
    /// What it reads from its standard input.
    #[serde(default)]
    stdin: String,
    /// Gives it a terminal of this size. What it prints comes as it is in the stream of the job, which needs `stream`;
    /// `job.input` types. Such a job does not outlive the manager. The administrator can also push to the list `input:ID`:
    /// `{"data": TEXT}` is typed, `{"rows": N, "cols": N}` is the new size.
    #[serde(default)]
    terminal: Option<Size>,
}

impl ProcessCommand for Bash {
    const NAME: &'static str = "bash";
    const SUMMARY: &'static str = "Runs a script with bash.";
    const ROLE: Role = Role::Operate;

    fn process(self) -> Result<Process, CommandError> {
        let argv = ["bash", "-c", &self.script].map(String::from).to_vec();
        Ok(Process { argv, stdin: self.stdin.into_bytes(), terminal: self.terminal, ..Process::default() })
    }
}
