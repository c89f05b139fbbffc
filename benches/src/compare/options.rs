//! What `compare` takes.

use std::path::PathBuf;

use clap::Parser;

/// Rounds of a full run, and of a quick one.
const ROUNDS: [usize; 2] = [5, 2];

/// Compares flist with its rivals (as root): times, sizes, bytes fetched.
#[derive(Parser)]
#[command(version)]
pub struct Options {
    /// How often each contender runs each row [default: 5, with --quick 2]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: Option<u16>,
    /// Only these rows: names or beginnings of names, separated by commas
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    pub(super) rows: Vec<String>,
    /// Leave out contenders whose name contains this
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    pub(super) without: Vec<String>,
    /// Small trees: shows that everything works, the numbers say little
    #[arg(long)]
    pub(super) quick: bool,
    /// Keep the work folder with trees, images and caches
    #[arg(long)]
    pub(super) keep: bool,
    /// Where the raw runs and the drawing go
    #[arg(long, value_name = "DIR", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/results"))]
    pub(super) results: PathBuf,
}

impl Options {
    pub(super) fn rounds(&self) -> usize {
        self.rounds.map_or(ROUNDS[usize::from(self.quick)], usize::from)
    }
}
