//! The program `initramfs`: builds the bootable images that carry `core0`.

use std::io::Write;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use initramfs::build::{self, BuildError, Built};
use initramfs::cli::{Cli, Verb};
use initramfs::report::size;
use initramfs::serve::{Options, Server};
use initramfs::system;
use tokio::signal::unix::{SignalKind, signal};

fn main() -> ExitCode {
    match run(Cli::parse().verb) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("\ninitramfs: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(verb: Verb) -> anyhow::Result<()> {
    match verb {
        Verb::Build(args) => {
            let built = build::build(&args.options().map_err(BuildError::from)?)?;
            print(&built).context("cannot print what was built")
        }
        Verb::System(args) => {
            let built = system::build(&args.options().map_err(BuildError::from)?)?;
            let (size, entries, folder) = (size(built.bytes), built.entries, built.folder.display());
            writeln!(std::io::stdout(), "{size:>10}  in {entries} files and folders: {folder}")
                .context("cannot print what was written")
        }
        Verb::Serve(args) => serve(&args.options()),
        Verb::Lock(places) => {
            Ok(build::lock(&places.options("node").map_err(BuildError::from)?, &["system.toml"])?)
        }
    }
}

fn serve(options: &Options) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Runtime::new().context("cannot start the threads")?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).context("cannot be told to end")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("cannot be told to end")?;
        let server = Server::bind(options).await?;
        writeln!(std::io::stdout(), "http://{}", server.address()).context("cannot say where it listens")?;
        let end = async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        server.run(end).await;
        Ok(())
    })
}

fn print(built: &Built) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    for (path, length) in &built.files {
        writeln!(out, "{:>10}  {}", size(*length), path.display())?;
    }
    writeln!(out, "{:>10}  {}", "build id", built.build_id)?;
    let (unpacked, seconds) = (size(built.unpacked_bytes), built.took.as_secs_f64());
    writeln!(out, "{unpacked:>10}  the initramfs, unpacked; built in {seconds:.1} s")
}
