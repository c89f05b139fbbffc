//! The `flist` program: parse, log, run, exit.

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;
use flist_tools::cli::Cli;
use flist_tools::{commands, exit};
use g8_fs::settings;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    forget_empty_variables();
    let cli = Cli::parse();
    log_to_stderr(&cli);
    exit::code(commands::run(cli))
}

/// `G8_FROM= flist ...` means that the variable is not set, as everywhere.
fn forget_empty_variables() {
    for name in [
        settings::FROM,
        "G8_TO",
        settings::CACHE,
        settings::CACHE_SIZE,
        settings::CACHE_MEMORY,
        settings::MODE,
        settings::DEADLINE,
        "G8_LISTEN",
        settings::ALLOW_PRIVATE_HINTS,
        "G8_LOG",
        "SOURCE_DATE_EPOCH",
    ] {
        if std::env::var_os(name).is_some_and(|value| value.is_empty()) {
            // SAFETY: this process has one thread so far.
            unsafe { std::env::remove_var(name) };
        }
    }
}

/// fuser warns about every request that an image has no answer to, at any rate a process likes: only its errors count. What
/// the judge of certificates logs is in our errors too.
/// Logs go to stderr: warnings by default, `-v` and `-vv` say more, `-q` only errors. `G8_LOG` overrides both.
fn log_to_stderr(cli: &Cli) {
    let level = match (cli.global.quiet, cli.global.verbose) {
        (true, _) => "error",
        (false, 0) => "warn",
        (false, 1) => "info",
        (false, 2) => "debug",
        (false, _) => "trace",
    };
    let filter = EnvFilter::try_from_env("G8_LOG")
        .unwrap_or_else(|_| EnvFilter::new(format!("{level},fuser=error,rustls_platform_verifier=off")));
    let color = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(color).init();
}
