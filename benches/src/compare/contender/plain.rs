//! The tree itself on the disk: what a reader would have without any image.

use std::path::{Path, PathBuf};

use super::{Cache, Image, Mount, Packer, Reader};

pub(in crate::compare) const NAME: &str = "ext4";

pub(super) struct Ext4;

impl Reader for Ext4 {
    fn name(&self) -> &str {
        NAME
    }

    fn packer(&self) -> Option<Box<dyn Packer>> {
        None
    }

    fn mount(&self, image: &Image, _: &Path, _: &Path, _: Cache) -> anyhow::Result<Box<dyn Mount>> {
        Ok(Box::new(Plain(image.folder.clone())))
    }

    fn enters(&self, row: &str) -> bool {
        // There is nothing to mount.
        row != "mount"
    }
}

struct Plain(PathBuf);

impl Mount for Plain {
    fn place(&self) -> &Path {
        &self.0
    }

    fn end(&mut self) -> anyhow::Result<()> {
        Ok(())
    }
}
