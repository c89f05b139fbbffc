//! Who takes part: programs that pack a tree, those that make a packed tree readable, and those that publish it.

mod erofs;
mod far;
mod flist;
mod kernel;
mod nydus;
mod plain;
mod publisher;
mod served;
mod squashfs;
mod tar;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use harness::ipfs::Daemon;
use serde_json::Value;

use super::distance::Distance;
use super::results::Extras;

pub(super) use erofs::NAME as EROFS;
pub(super) use far::{DOWNLOAD, FUSE as FAR_FUSE, KERNEL as FAR_KERNEL, NYDUS as FAR_NYDUS};
pub(super) use far::{FUSE_PROFILE, FUSE_STALLED, FUSE_THREE, KERNEL_PROFILE, KERNEL_STALLED, KERNEL_THREE};
pub(super) use flist::{FUSE as FLIST_FUSE, KERNEL as FLIST_KERNEL, PACK as FLIST, Pack as FlistPack};
pub(super) use nydus::{NAME as NYDUS, program as nydus_program};
pub(super) use plain::NAME as EXT4;
pub(super) use publisher::{BARE, OURS as FLIST_PUBLISH};

/// Makes an image of a tree.
pub(super) trait Packer {
    fn name(&self) -> &str;

    /// The call that packs `tree` into the empty folder `out`.
    fn command(&self, tree: &Path, out: &Path) -> anyhow::Result<Command>;
}

/// Makes an image readable.
pub(super) trait Reader {
    fn name(&self) -> &str;

    /// Who made its image; nobody if it reads the tree itself.
    fn packer(&self) -> Option<Box<dyn Packer>>;

    /// Makes of a new image what is needed beside it; not to be measured.
    fn prepare(&self, _image: &Image) -> anyhow::Result<()> {
        Ok(())
    }

    /// Mounts on the empty folder `at`; what it keeps on the disk goes to the folder `kept`.
    fn mount(&self, image: &Image, at: &Path, kept: &Path, cache: Cache) -> anyhow::Result<Box<dyn Mount>>;

    /// The program that serves it.
    fn program(&self) -> Option<PathBuf> {
        None
    }

    /// What it keeps on the disk between two mounts, as far as that is to be measured.
    fn keeps(&self) -> Keeps {
        Keeps::Nothing
    }

    /// Whether two mounts are served by one process.
    fn shares_daemon(&self) -> bool {
        false
    }

    /// Whether it takes part in this row.
    fn enters(&self, _row: &str) -> bool {
        true
    }
}

/// Brings an image of ours onto an IPFS node.
pub(super) trait Publisher {
    fn name(&self) -> &str;

    /// The call that does it; the archive `car` has the same blocks as the image.
    fn command(&self, image: &Image, car: &Path, node: &Daemon) -> anyhow::Result<Command>;
}

/// A mounted image. `end` may be called again; whoever implements it calls it on drop.
pub(super) trait Mount {
    fn place(&self) -> &Path;

    fn end(&mut self) -> anyhow::Result<()>;

    /// Milliseconds that mounting took inside the daemon.
    fn opened_inside_ms(&self) -> Option<f64> {
        None
    }

    /// What it has moved so far, as far as that is known; an error if a read has failed.
    fn traffic(&self) -> anyhow::Result<Extras> {
        Ok(Extras::new())
    }

    /// Memory of the daemon.
    fn memory(&self) -> anyhow::Result<Option<Extras>> {
        Ok(None)
    }
}

/// What a packer has made.
#[derive(Clone)]
pub(super) struct Image {
    pub(super) folder: PathBuf,
    /// What it printed.
    pub(super) said: String,
}

/// The state of a contender's own cache on the disk when it is mounted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Cache {
    /// Empty; it keeps what it keeps by default.
    Empty,
    /// Empty; it keeps all that it reads.
    Filling,
    /// As the last mount left it.
    Kept,
}

/// What a contender keeps on the disk between two mounts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Keeps {
    /// It reads its image each time.
    Nothing,
    /// What comes from far away; what comes from this machine only if it is told to.
    IfTold,
    /// All that it reads.
    All,
}

/// All who take part.
pub(super) struct Contenders {
    pub(super) packers: Vec<Box<dyn Packer>>,
    pub(super) readers: Vec<Box<dyn Reader>>,
    pub(super) publishers: Vec<Box<dyn Publisher>>,
    /// Who does not, and why.
    pub(super) left_out: Vec<String>,
    without: Vec<String>,
}

impl Contenders {
    /// Those whose image is so far away. Next door, ours with the image on the same machine too: what is lost by the way.
    pub(super) fn at(&self, distance: Distance) -> anyhow::Result<Vec<Box<dyn Reader>>> {
        let far = |how| Box::new(far::Far::new(how, distance.link())) as Box<dyn Reader>;
        let mut readers = Vec::new();
        for mode in flist::modes()? {
            readers.push(far(far::How::Flist(mode)));
            readers.push(far(far::How::Profiled(mode)));
            if distance == Distance::Lan {
                readers.push(Box::new(flist::Flist::new(mode)));
            }
        }
        if is_in(nydus::NAME, &self.without) {
            readers.push(far(far::How::Nydus(nydus::program()?)));
        }
        readers.push(far(far::How::Download));
        readers.retain(|reader| is_in(reader.name(), &self.without));
        Ok(readers)
    }

    /// Ours with three servers in the region, and with one of them stalled.
    pub(super) fn of_three(&self) -> anyhow::Result<Vec<Box<dyn Reader>>> {
        let mut readers: Vec<Box<dyn Reader>> = Vec::new();
        for mode in flist::modes()? {
            for servers in [far::Servers::Three, far::Servers::ThreeOneStalls] {
                readers.push(Box::new(far::Far::of(mode, servers, Distance::Region.link())));
            }
        }
        readers.retain(|reader| is_in(reader.name(), &self.without));
        Ok(readers)
    }
}

fn is_in(name: &str, without: &[String]) -> bool {
    !without.iter().any(|part| name.contains(part.as_str()))
}

/// Everybody whose name holds none of `without`. Ours come first: ratios are to them.
pub(super) fn all(without: &[String]) -> anyhow::Result<Contenders> {
    let is_in = |name: &str| is_in(name, without);
    let mut all = Contenders {
        packers: Vec::new(),
        readers: Vec::new(),
        publishers: vec![Box::new(publisher::Ours), Box::new(publisher::Bare)],
        left_out: without.to_vec(),
        without: without.to_vec(),
    };
    all.packers.push(Box::new(flist::Pack));
    for mode in flist::modes()? {
        all.readers.push(Box::new(flist::Flist::new(mode)));
    }
    if is_in(nydus::NAME) {
        let program = nydus::program()?;
        all.packers.push(Box::new(nydus::Pack::new(&program)));
        all.readers.push(Box::new(nydus::Nydus::new(&program, nydus::Verify::No)));
        all.readers.push(Box::new(nydus::Nydus::new(&program, nydus::Verify::Yes)));
    }
    all.packers.push(Box::new(tar::Pack));
    all.packers.extend([Box::new(squashfs::DEFAULT) as Box<dyn Packer>, Box::new(squashfs::LARGE)]);
    all.packers.extend([Box::new(erofs::PLAIN) as Box<dyn Packer>, Box::new(erofs::LZ4)]);
    for kernel in [Box::new(erofs::Erofs) as Box<dyn Reader>, Box::new(squashfs::Kernel)] {
        if kernel::knows(kernel.name()) {
            all.readers.push(kernel);
        } else {
            all.left_out.push(format!("{} (not in this kernel)", kernel.name()));
        }
    }
    all.readers.push(Box::new(squashfs::Fuse));
    all.readers.push(Box::new(plain::Ext4));
    all.packers.retain(|packer| is_in(packer.name()));
    all.readers.retain(|reader| is_in(reader.name()));
    all.publishers.retain(|publisher| is_in(publisher.name()));
    Ok(all)
}

/// The CID that `flist pack` printed.
pub(super) fn packed_cid(image: &Image) -> anyhow::Result<String> {
    let report: Value = serde_json::from_str(&image.said).context("flist pack printed no JSON")?;
    Ok(report["cid"].as_str().context("flist pack named no CID")?.to_owned())
}

/// A name as part of a path.
pub(super) fn slug(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect()
}
