//! The program `core0`: its first argument says which process of a node it is.

#![deny(clippy::print_stderr)]

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use core0::boot::arguments::Arguments;
use core0::cli::{Cli, FlistDaemonArgs, FlistServeArgs, InitArgs, RoleArgs, Run, SpawnerArgs};
use core0::domain::flist;
use core0::manager::{self, Options, Pace};
use core0::paths::Paths;
use core0::say::say;
use core0::{gateway, init, schema, spawner};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let done = match role() {
        RoleArgs::Init(args) => run_init(&args),
        RoleArgs::Run(run) => run_manager(run),
        RoleArgs::Schema => print_schema(),
        RoleArgs::Spawner(args) => run_spawner(&args),
        RoleArgs::FlistDaemon(args) => run_flist_daemon(&args),
        RoleArgs::FlistServe(args) => run_flist_serve(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            say(format_args!("core0: {e:#}"));
            ExitCode::FAILURE
        }
    }
}

/// PID 1 is small: its arguments are plain, and the parser of the others costs more memory than all of it has.
fn role() -> RoleArgs {
    match InitArgs::plain(std::env::args_os().skip(1)) {
        Some(args) if std::process::id() == 1 => {
            if let Some(folder) = std::env::current_exe().ok().as_deref().and_then(Path::parent) {
                become_small(folder, &args);
            }
            RoleArgs::Init(args)
        }
        Some(_) | None => Cli::parse().role,
    }
}

/// PID 1 goes on as `core0-init`, which lies beside this program and has nothing of the engine in it. Where that is missing,
/// it goes on as it is, and takes some 1.2 MiB more.
fn become_small(folder: &Path, args: &InitArgs) {
    use std::os::unix::process::CommandExt;
    let place = if args.machine { "--machine" } else { "--namespace" };
    let error = std::process::Command::new(folder.join("core0-init")).arg(place).args(&args.run).exec();
    say(format_args!("core0: core0-init is not beside this program, PID 1 stays large: {error}"));
}

fn run_init(args: &InitArgs) -> anyhow::Result<()> {
    if std::process::id() != 1 {
        anyhow::bail!("only PID 1 can reap everybody: use `core0 run`, or start it in a PID namespace");
    }
    let down = init::run(&args.run, args.machine)?;
    init::finish(down, args.machine).context("the machine cannot be ended")
}

fn print_schema() -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{:#}", schema::document()).context("cannot print the commands")
}

fn run_manager(run: Run) -> anyhow::Result<()> {
    let arguments = run.boot.then(Arguments::of_machine);
    // On the console of a machine stands what goes wrong, unless it was asked for more. Why an answer to DHCP is none is told
    // there alone.
    let usual = match &arguments {
        Some(arguments) if !arguments.debug => "warn",
        Some(_) | None => "info,mozim::dhcpv4::msg=debug",
    };
    log_to_stderr(usual);
    let paths = match &run.dev {
        Some(dir) => Paths::development(&std::path::absolute(dir)?),
        None => Paths::system(),
    };
    // PID 1 waits for its manager, whoever's folder it works in.
    let pace = if run.dev.is_some() && !manager::is_machine() { Pace::QUICK } else { Pace::PATIENT };
    let options = Options { paths, config: run.config, boot: arguments, pace };
    let runtime = tokio::runtime::Runtime::new().context("cannot start the threads")?;
    let done = runtime.block_on(manager::run(options));
    // A command that hangs in the kernel does not keep the node from ending.
    runtime.shutdown_timeout(Duration::from_millis(200));
    done
}

fn run_spawner(args: &SpawnerArgs) -> anyhow::Result<()> {
    let grace = Some(Duration::from_secs(args.grace)).filter(|grace| !grace.is_zero());
    spawner::server::serve(&args.socket, grace)
        .with_context(|| format!("spawner of {}", args.socket.display()))
}

fn run_flist_daemon(args: &FlistDaemonArgs) -> anyhow::Result<()> {
    log_to_stderr("info");
    g8_fs::daemon::run_process(flist::daemon(args)?)
}

fn run_flist_serve(args: &FlistServeArgs) -> anyhow::Result<()> {
    log_to_stderr("info");
    tokio::runtime::Runtime::new().context("cannot start the threads")?.block_on(gateway::serve(args.listen))
}

/// Logs go to stderr; `G8_LOG` says how much.
fn log_to_stderr(usual: &str) {
    let filter = std::env::var("G8_LOG").ok().filter(|level| !level.is_empty());
    let filter =
        filter.and_then(|level| EnvFilter::try_new(level).ok()).unwrap_or_else(|| EnvFilter::new(usual));
    let color = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(color)
        // It would say with `eprintln!` that nothing can be said.
        .log_internal_errors(false)
        .init();
}
