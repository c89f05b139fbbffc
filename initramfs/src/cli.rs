//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::build::Options;
use crate::store::{Store, StoreError};

/// Builds the bootable images of a node.
#[derive(Debug, Parser)]
#[command(version, disable_help_subcommand = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Build kernel, initramfs, UKI, disk image and ISO from the locked packages
    Build(BuildArgs),
    /// Lock the versions that the mirror has today
    Lock(PlaceArgs),
}

/// `initramfs build`
#[derive(Debug, Args)]
pub struct BuildArgs {
    /// The image of the tests: what a node cannot do without, quickly compressed
    #[arg(long)]
    pub minimal: bool,
    /// When the mirror has dropped locked versions, take today's for this build, and say so
    #[arg(long)]
    pub relock: bool,
    /// Folder for what is built
    #[arg(long, value_name = "DIR", default_value = "target/image")]
    pub output: PathBuf,
    /// Where things are
    #[command(flatten)]
    pub places: PlaceArgs,
}

/// Where things are.
#[derive(Debug, Args)]
pub struct PlaceArgs {
    /// Folder of recipes and their lock
    #[arg(long, value_name = "DIR", default_value = "initramfs/recipes")]
    pub recipes: PathBuf,
    /// Folder with the programs core0 and core0-init
    #[arg(long, value_name = "DIR", default_value = "target/release")]
    pub programs: PathBuf,
    /// Folder for packages that were fetched [default: ~/.cache/g8os-build/image]
    #[arg(long, value_name = "DIR")]
    pub cache: Option<PathBuf>,
}

impl BuildArgs {
    /// What is to be built.
    pub fn options(self) -> Result<Options, StoreError> {
        let recipe = if self.minimal { "minimal" } else { "node" };
        Ok(Options { relock: self.relock, output: self.output, ..self.places.options(recipe)? })
    }
}

impl PlaceArgs {
    /// For a recipe by its name.
    pub fn options(self, recipe: &str) -> Result<Options, StoreError> {
        Ok(Options {
            recipe: self.recipes.join(format!("{recipe}.toml")),
            lock: self.recipes.join("packages.lock"),
            relock: false,
            programs: self.programs,
            cache: self.cache.map_or_else(Store::usual, Ok)?,
            output: PathBuf::new(),
        })
    }
}
