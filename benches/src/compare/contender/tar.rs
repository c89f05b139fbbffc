//! tar and zstd: how fast one can pack without a format.

use std::path::Path;
use std::process::Command;

use super::Packer;
use crate::run::pipeline;

/// What the archive is called.
pub(super) const FILE: &str = "image.tar.zst";

pub(super) struct Pack;

impl Packer for Pack {
    fn name(&self) -> &str {
        "tar, zstd -3 -T0"
    }

    fn command(&self, tree: &Path, out: &Path) -> anyhow::Result<Command> {
        let (tree, out) = (tree.display(), out.display());
        let script = format!("tar -C '{tree}' -cf - . | zstd -q -3 -T0 -o '{out}/{FILE}'");
        Ok(pipeline(&script))
    }
}
