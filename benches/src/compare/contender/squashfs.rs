//! squashfs images, and their two readers: the kernel and squashfuse.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::kernel::KernelMount;
use super::served::{Served, process_memory};
use super::{Cache, Image, Mount, Packer, Reader};
use crate::compare::results::Extras;
use crate::run::{command, output};

const IMAGE: &str = "image.squashfs";

pub(super) struct Pack {
    name: &'static str,
    block: &'static str,
}

pub(super) const DEFAULT: Pack = Pack { name: "mksquashfs, zstd 3, 128K", block: "128K" };
pub(super) const LARGE: Pack = Pack { name: "mksquashfs, zstd 3, 1M", block: "1M" };

impl Packer for Pack {
    fn name(&self) -> &str {
        self.name
    }

    fn command(&self, tree: &Path, out: &Path) -> anyhow::Result<Command> {
        let mut call = command("mksquashfs", &[tree, &out.join(IMAGE)]);
        call.args(["-comp", "zstd", "-Xcompression-level", "3", "-b", self.block, "-quiet", "-no-progress"]);
        Ok(call)
    }
}

/// Through a loop device, which goes with the mount.
pub(super) struct Kernel;

impl Reader for Kernel {
    fn name(&self) -> &str {
        "squashfs (kernel)"
    }

    fn packer(&self) -> Option<Box<dyn Packer>> {
        Some(Box::new(DEFAULT))
    }

    fn mount(&self, image: &Image, at: &Path, _: &Path, _: Cache) -> anyhow::Result<Box<dyn Mount>> {
        let mut call = command("mount", &["-t", "squashfs", "-o", "loop,ro,nodev,nosuid"]);
        output(call.arg(image.folder.join(IMAGE)).arg(at))?;
        Ok(Box::new(KernelMount::of(at)))
    }
}

/// squashfuse with the low-level interface.
pub(super) struct Fuse;

impl Reader for Fuse {
    fn name(&self) -> &str {
        "squashfuse_ll"
    }

    fn packer(&self) -> Option<Box<dyn Packer>> {
        Some(Box::new(DEFAULT))
    }

    fn mount(&self, image: &Image, at: &Path, _: &Path, _: Cache) -> anyhow::Result<Box<dyn Mount>> {
        let mut call = command("squashfuse_ll", &["-f"]);
        call.arg(image.folder.join(IMAGE)).arg(at).stdout(Stdio::null()).stderr(Stdio::null());
        let mut served = Served::start(&mut call, at)?;
        served.wait_mounted()?;
        Ok(Box::new(Mounted { served }))
    }

    fn program(&self) -> Option<PathBuf> {
        Some(PathBuf::from("/usr/bin/squashfuse_ll")).filter(|program| program.exists())
    }
}

struct Mounted {
    served: Served,
}

impl Mount for Mounted {
    fn place(&self) -> &Path {
        self.served.place()
    }

    fn end(&mut self) -> anyhow::Result<()> {
        self.served.end()
    }

    fn memory(&self) -> anyhow::Result<Option<Extras>> {
        process_memory(self.served.pid()).map(Some)
    }
}
