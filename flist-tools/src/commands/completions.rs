//! `flist completions SHELL`: a completion script on stdout.

use std::io::Write;

use clap::CommandFactory;

use crate::cli::Cli;

pub fn run(shell: clap_complete::Shell) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "flist", &mut script);
    Ok(std::io::stdout().write_all(&script)?)
}
