//! `nydus-peer` drives the rival nydus v3, so that our benchmarks can measure it beside us.
//!
//! What this is: OUR thin front-end around THEIR published library (`nydus-core`, `nydus-format`,
//! `nydus-storage`, `nydus-backend`, each `=3.0.0-beta.2`, over `fuser` `=0.17.0`). It repeats the defaults
//! of their builder and the flags of their FUSE front-end (`nydus/src/fuse/fs.rs` at 02156def). It is not
//! their binary, which is not published as a crate. What differs stands in README.md; every difference is
//! meant to cost the rival nothing.
//!
//! Limits: one directory, one layer, one blob.

mod edge;
mod image;
mod mount;
mod pack;
mod remote;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

/// Pack and mount images with the library of nydus v3.
#[derive(Parser)]
#[command(name = "nydus-peer", about, version = concat!(env!("CARGO_PKG_VERSION"), " (nydus 3.0.0-beta.2)"))]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Build blob, sidecar and bootstrap from a directory, and print one line of JSON
    Pack {
        /// The directory to pack
        tree: PathBuf,
        /// Where the image goes: created, or empty; not inside TREE
        outdir: PathBuf,
    },
    /// Mount an image through FUSE, and serve it until it is unmounted or SIGTERM or SIGINT comes
    Mount(mount::MountArgs),
}

fn main() -> ExitCode {
    match run(Cli::parse().verb) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("nydus-peer: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(verb: Verb) -> Result<()> {
    match verb {
        Verb::Pack { tree, outdir } => {
            let packed = pack::pack(&tree, &outdir)?;
            print_line(&serde_json::json!({
                "blob_bytes": packed.blob_bytes,
                "bootstrap_bytes": packed.bootstrap_bytes,
                "sidecar_bytes": packed.sidecar_bytes,
                "seconds": packed.elapsed.as_secs_f64(),
            }))
        }
        Verb::Mount(args) => mount::serve(&args),
    }
}

/// A caller waits for this line at the other end of a pipe: it leaves at once, and a lost reader is no panic.
fn print_line(line: &serde_json::Value) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{line}").and_then(|()| stdout.flush()).context("write to stdout")
}
