//! `compare`: flist beside its rivals (`make bench`). The work is in the library.

use benchmarks::compare::{self, Options};
use clap::Parser;

fn main() -> anyhow::Result<()> {
    compare::compare(&Options::parse())
}
