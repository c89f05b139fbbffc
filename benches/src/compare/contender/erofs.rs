//! EROFS images, and the kernel that reads them: what is possible without a daemon.

use std::path::Path;
use std::process::Command;

use anyhow::Context;
use rustix::mount::{MountFlags, mount};

use super::kernel::KernelMount;
use super::{Cache, Image, Mount, Packer, Reader};
use crate::run::command;

pub(in crate::compare) const NAME: &str = "erofs (kernel)";
const IMAGE: &str = "image.erofs";

pub(super) struct Pack {
    name: &'static str,
    options: &'static [&'static str],
}

pub(super) const PLAIN: Pack = Pack { name: "mkfs.erofs, not compressed", options: &[] };
/// lz4hc takes five times as long and is a tenth smaller.
pub(super) const LZ4: Pack = Pack { name: "mkfs.erofs, lz4", options: &["-zlz4"] };

impl Packer for Pack {
    fn name(&self) -> &str {
        self.name
    }

    fn command(&self, tree: &Path, out: &Path) -> anyhow::Result<Command> {
        let mut call = command("mkfs.erofs", &["--quiet"]);
        call.args(self.options).arg(out.join(IMAGE)).arg(tree);
        Ok(call)
    }
}

/// Not compressed, and mounted from the file: no loop device.
pub(super) struct Erofs;

impl Reader for Erofs {
    fn name(&self) -> &str {
        NAME
    }

    fn packer(&self) -> Option<Box<dyn Packer>> {
        Some(Box::new(PLAIN))
    }

    fn mount(&self, image: &Image, at: &Path, _: &Path, _: Cache) -> anyhow::Result<Box<dyn Mount>> {
        // mount(8) would put a loop device in between.
        let flags = MountFlags::RDONLY | MountFlags::NODEV | MountFlags::NOSUID;
        mount(image.folder.join(IMAGE), at, "erofs", flags, None).context("mounting EROFS")?;
        Ok(Box::new(KernelMount::of(at)))
    }
}
