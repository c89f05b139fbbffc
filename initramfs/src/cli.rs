//! The command line.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand};

use crate::build::{self, Names, Options};
use crate::serve;
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
    /// Write the tree of the system flist from the locked packages
    System(SystemArgs),
    /// Lock the versions that the mirror has today
    Lock(PlaceArgs),
    /// Hand out over HTTP what was built: scripts for iPXE and ISOs with the number of a network, kernel and initramfs
    Serve(ServeArgs),
}

/// `initramfs serve`
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Where to listen. Whoever can reach it gets the images; they are no secret
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8086")]
    pub listen: SocketAddr,
    /// Where machines reach this server; scripts name it [default: http:// and where it listens]
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    /// Serve the image of the tests
    #[arg(long)]
    pub minimal: bool,
    /// Folder of what was built
    #[arg(long, value_name = "DIR", default_value = "target/image")]
    pub images: PathBuf,
    /// Arguments of the kernel, beside `zerotier=`
    #[arg(long, value_name = "TEXT", default_value = "console=tty0 console=ttyS0 quiet panic=10")]
    pub arguments: String,
}

impl ServeArgs {
    /// What is to be served.
    pub fn options(self) -> serve::Options {
        let recipe = if self.minimal { "minimal.toml" } else { "node.toml" };
        let [kernel, initramfs, ..] = Names::of(Path::new(recipe), &self.images).all();
        let (listen, url, arguments) = (self.listen, self.url, self.arguments);
        serve::Options { listen, url, kernel, initramfs, parts: self.images.join(build::PARTS), arguments }
    }
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
    /// Put a file of this machine into the image, as the public key and the address of the bootstrap file:
    /// --with /etc/g8os/bootstrap.pub=key.pub. Can be given several times
    #[arg(long, value_name = "PLACE=FILE", value_parser = placed)]
    pub with: Vec<(String, PathBuf)>,
    /// Where things are
    #[command(flatten)]
    pub places: PlaceArgs,
}

/// `initramfs system`
#[derive(Debug, Args)]
pub struct SystemArgs {
    /// When the mirror has dropped locked versions, take today's for this build, and say so
    #[arg(long)]
    pub relock: bool,
    /// The tree is written to `system` in this folder, in the place of one that is there
    #[arg(long, value_name = "DIR", default_value = "target/image")]
    pub output: PathBuf,
    /// Where things are
    #[command(flatten)]
    pub places: PlaceArgs,
}

impl SystemArgs {
    /// What is to be written.
    pub fn options(self) -> Result<Options, StoreError> {
        Ok(Options { relock: self.relock, output: self.output, ..self.places.options("system")? })
    }
}

/// A place in the image, and the file for it.
fn placed(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((place, file)) if place.starts_with('/') && !place.ends_with('/') && !file.is_empty() => {
            Ok((place.into(), file.into()))
        }
        Some(_) | None => Err("it is an absolute path in the image, =, and a file of this machine".into()),
    }
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
        Ok(Options {
            relock: self.relock,
            output: self.output,
            with: self.with,
            ..self.places.options(recipe)?
        })
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
            with: Vec::new(),
        })
    }
}
