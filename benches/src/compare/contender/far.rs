//! Images on another machine: every mount comes with a server of its own, at the given distance, that counts what it gives.
//!
//! The server is the same for all of them: a gateway of blocks for flist, a registry of blobs for nydus, a file to download
//! for tar.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use harness::Origin;
use harness::origin::{Fault, Link, Traffic};

use super::flist::Mode;
use super::{Cache, Image, Mount, Packer, Reader, flist, nydus, packed_cid, tar};
use crate::compare::results::Extras;
use crate::run::{output, pipeline, silent};

pub(in crate::compare) const KERNEL: &str = "flist kernel, http";
pub(in crate::compare) const FUSE: &str = "flist fuse, http";
pub(in crate::compare) const NYDUS: &str = "nydus v3, http";
pub(in crate::compare) const DOWNLOAD: &str = "download and unpack tar.zst";

pub(in crate::compare) const KERNEL_THREE: &str = "flist kernel, three servers";
pub(in crate::compare) const FUSE_THREE: &str = "flist fuse, three servers";
pub(in crate::compare) const KERNEL_STALLED: &str = "flist kernel, one of three stalled";
pub(in crate::compare) const FUSE_STALLED: &str = "flist fuse, one of three stalled";

pub(in crate::compare) const KERNEL_PROFILE: &str = "flist kernel, http, profile";
pub(in crate::compare) const FUSE_PROFILE: &str = "flist fuse, http, profile";
/// What the profile is recorded of, as the row `start` runs it.
const PROGRAM: [&str; 3] = ["/usr/bin/python3", "-c", "print(1)"];
/// Where the reference with the profile is, beside the image.
const REFERENCE: &str = "profiled";

/// What nydus' deployments ship as a layer of its own: all metadata.
const BOOTSTRAP: &str = "bootstrap.tar.zst";

/// A contender whose image is elsewhere.
pub(super) struct Far {
    how: How,
    link: Link,
    servers: Servers,
}

/// How many servers have the image; flist alone takes several.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Servers {
    One,
    Three,
    /// The first one stops answering when the image is mounted.
    ThreeOneStalls,
}

/// What it does there.
pub(super) enum How {
    Flist(Mode),
    /// Following a profile that was recorded before.
    Profiled(Mode),
    /// With this program.
    Nydus(PathBuf),
    Download,
}

impl Far {
    pub(super) fn new(how: How, link: Link) -> Far {
        Far { how, link, servers: Servers::One }
    }

    pub(super) fn of(mode: Mode, servers: Servers, link: Link) -> Far {
        Far { how: How::Flist(mode), link, servers }
    }

    /// The servers of an image.
    fn serve(&self, image: &Image) -> Vec<Origin> {
        let count = if self.servers == Servers::One { 1 } else { 3 };
        let serve = || {
            let origin = Origin::over(&image.folder);
            origin.gives_files_of(&image.folder);
            origin.link(self.link);
            origin
        };
        std::iter::repeat_with(serve).take(count).collect()
    }

    fn flist(
        &self,
        mode: Mode,
        image: &Image,
        at: &Path,
        kept: &Path,
        url: &str,
    ) -> anyhow::Result<Box<dyn Mount>> {
        let reference = match self.how {
            How::Profiled(_) => fs::read_to_string(beside(image, REFERENCE)).context("no profile")?,
            How::Flist(_) | How::Nydus(_) | How::Download => packed_cid(image)?,
        };
        let options = ["--from", url, "--mode", mode.option()];
        // Its store is not there: what it reads comes over the network.
        let flist = crate::flist::Flist::at(&kept.join("no-store"), kept)?;
        let mounted = flist.mount(&reference, at, &options)?;
        let got = mounted.opened()["mode"].as_str();
        anyhow::ensure!(got == Some(mode.option()), "asked for mode {}, got {got:?}", mode.option());
        Ok(Box::new(mounted))
    }
}

impl Reader for Far {
    fn name(&self) -> &str {
        match (&self.how, self.servers) {
            (How::Profiled(Mode::Kernel), _) => KERNEL_PROFILE,
            (How::Profiled(Mode::Fuse), _) => FUSE_PROFILE,
            (How::Flist(Mode::Kernel), Servers::One) => KERNEL,
            (How::Flist(Mode::Fuse), Servers::One) => FUSE,
            (How::Flist(Mode::Kernel), Servers::Three) => KERNEL_THREE,
            (How::Flist(Mode::Fuse), Servers::Three) => FUSE_THREE,
            (How::Flist(Mode::Kernel), Servers::ThreeOneStalls) => KERNEL_STALLED,
            (How::Flist(Mode::Fuse), Servers::ThreeOneStalls) => FUSE_STALLED,
            (How::Nydus(_), _) => NYDUS,
            (How::Download, _) => DOWNLOAD,
        }
    }

    fn packer(&self) -> Option<Box<dyn Packer>> {
        Some(match &self.how {
            How::Flist(_) | How::Profiled(_) => Box::new(flist::Pack),
            How::Nydus(program) => Box::new(nydus::Pack::new(program)),
            How::Download => Box::new(tar::Pack),
        })
    }

    fn prepare(&self, image: &Image) -> anyhow::Result<()> {
        match self.how {
            How::Profiled(mode) => return record(image, mode),
            How::Flist(_) | How::Download => return Ok(()),
            How::Nydus(_) => {}
        }
        let layer = image.folder.join(BOOTSTRAP);
        if !layer.exists() {
            let (folder, layer) = (image.folder.display(), layer.display());
            let script =
                format!("cd '{folder}' && tar -cf - image.boot *.blob.meta | zstd -q -3 -o '{layer}'");
            silent(&mut pipeline(&script))?;
        }
        Ok(())
    }

    fn mount(&self, image: &Image, at: &Path, kept: &Path, cache: Cache) -> anyhow::Result<Box<dyn Mount>> {
        let origins = self.serve(image);
        let urls: Vec<String> = origins.iter().map(Origin::url).collect();
        let url = urls.join(",");
        let mount = match &self.how {
            How::Flist(mode) | How::Profiled(mode) => self.flist(*mode, image, at, kept, &url)?,
            How::Nydus(program) => {
                let image = Image { folder: url.into(), said: String::new() };
                nydus::Nydus::new(program, nydus::Verify::No).mount(&image, at, kept, cache)?
            }
            How::Download => {
                let unpack =
                    format!("curl -sSf '{url}/{}' | zstd -dcq | tar -C '{}' -xf -", tar::FILE, at.display());
                silent(&mut pipeline(&unpack))?;
                Box::new(Unpacked(at.to_owned()))
            }
        };
        if self.servers == Servers::ThreeOneStalls {
            origins[0].fails(Fault::Stall);
        }
        Ok(Box::new(Mounted { mount, origins }))
    }

    fn program(&self) -> Option<PathBuf> {
        match &self.how {
            How::Flist(_) | How::Profiled(_) => crate::flist::program().ok(),
            How::Nydus(program) => Some(program.clone()),
            How::Download => None,
        }
    }
}

fn beside(image: &Image, name: &str) -> PathBuf {
    image.folder.with_extension(name)
}

/// Records a profile in the store of the image, once.
fn record(image: &Image, mode: Mode) -> anyhow::Result<()> {
    let kept = beside(image, REFERENCE);
    if kept.exists() {
        return Ok(());
    }
    let flist = crate::flist::Flist::at(&image.folder, &beside(image, "cache"))?;
    let cid = packed_cid(image)?;
    let arguments = ["profile", "record", &cid, "--mode", mode.option(), "--"];
    let said = output(flist.command(&arguments).args(PROGRAM))?;
    fs::write(kept, said.trim()).context("keeping the reference of a profile")
}

struct Mounted {
    mount: Box<dyn Mount>,
    origins: Vec<Origin>,
}

impl Mount for Mounted {
    fn place(&self) -> &Path {
        self.mount.place()
    }

    fn end(&mut self) -> anyhow::Result<()> {
        self.mount.end()
    }

    fn opened_inside_ms(&self) -> Option<f64> {
        self.mount.opened_inside_ms()
    }

    /// As the server has counted it, which is the same for all.
    fn traffic(&self) -> anyhow::Result<Extras> {
        self.mount.traffic()?;
        let all: Vec<Traffic> = self.origins.iter().map(Origin::traffic).collect();
        let sum = |count: fn(&Traffic) -> u64| all.iter().map(count).sum::<u64>() as f64;
        Ok(Extras::from([
            ("fetched_bytes", sum(|traffic| traffic.bytes)),
            ("requests", sum(|traffic| traffic.requests)),
            ("connections", sum(|traffic| traffic.connections)),
        ]))
    }

    fn memory(&self) -> anyhow::Result<Option<Extras>> {
        self.mount.memory()
    }
}

/// A tree that was unpacked into a folder.
struct Unpacked(PathBuf);

impl Mount for Unpacked {
    fn place(&self) -> &Path {
        &self.0
    }

    fn end(&mut self) -> anyhow::Result<()> {
        match fs::remove_dir_all(&self.0) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }
}

impl Drop for Unpacked {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("{error:#}");
        }
    }
}
