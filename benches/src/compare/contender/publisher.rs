//! Onto an IPFS node: ours, and the least that can be done, one import of an archive that is there already.

use std::path::Path;
use std::process::Command;

use harness::ipfs::Daemon;

use super::{Image, Publisher, packed_cid};
use crate::flist::Flist;
use crate::run::command;

pub(in crate::compare) const OURS: &str = "flist publish";
pub(in crate::compare) const BARE: &str = "curl, bare import of the CAR";

/// `flist publish` from a store.
pub(super) struct Ours;

impl Publisher for Ours {
    fn name(&self) -> &str {
        OURS
    }

    fn command(&self, image: &Image, _car: &Path, node: &Daemon) -> anyhow::Result<Command> {
        // Publishing uses no cache; the environment's is not to be touched all the same.
        let flist = Flist::at(&image.folder, &image.folder.with_extension("cache"))?;
        Ok(flist.command(&["publish", &packed_cid(image)?, "--to", &node.spec()]))
    }
}

/// `curl`, which streams the archive as it is, once.
pub(super) struct Bare;

impl Publisher for Bare {
    fn name(&self) -> &str {
        BARE
    }

    fn command(&self, _image: &Image, car: &Path, node: &Daemon) -> anyhow::Result<Command> {
        let file = format!("file=@{};type=application/vnd.ipld.car", car.display());
        let call = format!("{}/api/v0/dag/import?pin-roots=true", node.url());
        // Without asking first whether it may: that would cost it a round trip.
        Ok(command("curl", &["-sSf", "-X", "POST", "-H", "Expect:", "-F", &file, &call]))
    }
}
