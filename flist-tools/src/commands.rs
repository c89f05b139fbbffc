//! One verb, one file. Each takes its arguments and prints its result; the work is in the engine.

mod bench;
mod cache;
mod cat;
mod check;
mod completions;
mod daemon;
mod info;
mod ls;
mod man;
mod mount;
mod mounts;
mod name;
mod pack;
mod profile;
mod publish;
mod run;
mod serve;
mod source;
mod stat;
mod tag;
mod tree;
mod umount;
mod unpack;

use crate::cli::{Cli, Command};

/// Runs the command that was given.
pub fn run(cli: Cli) -> anyhow::Result<()> {
    let global = &cli.global;
    match cli.command {
        Command::Pack(args) => pack::run(global, &args),
        Command::Profile(command) => profile::run(global, &command),
        Command::Publish(args) => publish::run(global, &args),
        Command::Name(command) => name::run(global, &command),
        Command::Mount(args) => mount::run(global, &args),
        Command::Umount(args) => umount::run(global, &args),
        Command::Mounts => mounts::run(global),
        Command::Ls(args) => ls::run(global, &args),
        Command::Tree(args) => tree::run(global, &args),
        Command::Cat(args) => cat::run(global, &args),
        Command::Stat(args) => stat::run(global, &args),
        Command::Info(args) => info::run(global, &args),
        Command::Check(args) => check::run(global, &args),
        Command::Unpack(args) => unpack::run(global, &args),
        Command::Run(args) => run::run(global, &args),
        Command::Serve(args) => serve::run(global, &args),
        Command::Bench(args) => bench::run(global, &args),
        Command::Source(command) => source::run(global, &command),
        Command::Tag(args) => tag::run(global, &args),
        Command::Cache(command) => cache::run(global, &command),
        Command::Completions { shell } => completions::run(shell),
        Command::Man { dir } => man::run(&dir),
        Command::Daemon => daemon::run(global),
    }
}
