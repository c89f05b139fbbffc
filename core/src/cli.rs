//! The command line: the first word says which process of a node this is.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// The shell of a node around the flist engine.
#[derive(Debug, Parser)]
#[command(version, disable_help_subcommand = true)]
pub struct Cli {
    /// Which process it is.
    #[command(subcommand)]
    pub role: RoleArgs,
}

/// The processes of a node.
#[derive(Debug, Subcommand)]
pub enum RoleArgs {
    /// PID 1 of a machine or a namespace: starts the manager and keeps it, reaps, ends in order
    Init(InitArgs),
    /// The manager: redis, jobs, services
    Run(Run),
    /// Print all commands as JSON schemas
    Schema,
    /// Starts processes for the manager, and keeps them when it dies
    #[command(hide = true)]
    Spawner(SpawnerArgs),
    /// Serves the flists of one cache
    #[command(hide = true)]
    FlistDaemon(FlistDaemonArgs),
    /// A trustless gateway of what the node's cache holds
    #[command(hide = true)]
    FlistServe(FlistServeArgs),
}

/// `core0 init`
#[derive(Debug, Args)]
pub struct InitArgs {
    /// In the end, unmount everything and reboot(2): not for a namespace that shares its mounts
    #[arg(long)]
    pub machine: bool,
    /// What `core0 run` is started with
    #[arg(last = true)]
    pub run: Vec<OsString>,
}

impl InitArgs {
    /// Reads `init [--machine] [-- RUN...]` as the parser does; anything else is left to it.
    pub fn plain(mut words: impl Iterator<Item = OsString>) -> Option<Self> {
        let mut args = Self { machine: false, run: Vec::new() };
        if words.next()? != "init" {
            return None;
        }
        while let Some(word) = words.next() {
            match word.to_str() {
                Some("--machine") => args.machine = true,
                Some("--") => args.run.extend(words.by_ref()),
                Some(_) | None => return None,
            }
        }
        Some(args)
    }
}

/// `core0 run`
#[derive(Debug, Args)]
pub struct Run {
    /// Configuration file
    #[arg(long, value_name = "FILE", env = "G8_CORE0_CONFIG")]
    pub config: Option<PathBuf>,
    /// Keep everything in this folder, and end with the terminal: a node for developing
    #[arg(long, value_name = "DIR")]
    pub dev: Option<PathBuf>,
    /// Bring a machine up: drivers, network
    #[arg(long, hide = true, conflicts_with = "dev")]
    pub boot: bool,
}

/// `core0 flist-daemon`
#[derive(Clone, Debug, Args)]
pub struct FlistDaemonArgs {
    /// Folder of the cache
    #[arg(long, value_name = "DIR")]
    pub cache: PathBuf,
    /// Most bytes of it on the disk
    #[arg(long, value_name = "BYTES")]
    pub cache_size: Option<u64>,
    /// Most bytes of decoded contents in memory
    #[arg(long, value_name = "BYTES")]
    pub cache_memory: Option<u64>,
}

/// `core0 flist-serve`
#[derive(Debug, Args)]
pub struct FlistServeArgs {
    /// Where to listen
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen: SocketAddr,
}

/// `core0 spawner`
#[derive(Debug, Args)]
pub struct SpawnerArgs {
    /// Where the manager finds it
    #[arg(long)]
    pub socket: PathBuf,
    /// End when no manager came for so many seconds; 0 is never
    #[arg(long, default_value_t = 60)]
    pub grace: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plain_reading_of_init_is_that_of_the_parser() {
        for line in [
            "init",
            "init --machine",
            "init -- --dev /x",
            "init --machine -- --config a",
            "init --help",
            "run",
        ] {
            let words = || line.split(' ').map(OsString::from);
            let parsed = match Cli::try_parse_from(std::iter::once("core0".into()).chain(words())) {
                Ok(Cli { role: RoleArgs::Init(args) }) => Some((args.machine, args.run)),
                Ok(_) | Err(_) => None,
            };
            assert_eq!(InitArgs::plain(words()).map(|args| (args.machine, args.run)), parsed, "{line}");
        }
    }
}
