//! What there is to mount, and from where.

use std::fs;
use std::path::{Path, PathBuf};

use super::servers::{Archive, Served};
use crate::origin::Link;
use crate::tree::Builder;
use crate::{Flist, Origin, Rpc, SplitMix64, args, random_tree, synthetic};

/// Servers of the images.
const ORIGINS: usize = 3;

/// An image, and what is in it.
pub(super) struct Image {
    pub(super) cid: String,
    pub(super) source: PathBuf,
    /// Regular files and their bytes.
    pub(super) files: Vec<(PathBuf, Vec<u8>)>,
    /// All of it in one file.
    pub(super) archive: Archive,
}

type Plant = fn(&Path);

/// All images and all servers.
pub(super) struct World {
    pub(super) images: Vec<Image>,
    pub(super) origins: Vec<Origin>,
    /// An IPFS node with all of them.
    pub(super) node: Rpc,
    /// `flist serve` with all of them.
    pub(super) gateway: Served,
    /// Who has packed; the last to go.
    _publisher: Flist,
}

impl World {
    pub(super) fn new() -> World {
        let publisher = Flist::new();
        let plants: [(&str, Plant); 3] =
            [("small", synthetic::seven_megabytes), ("large", few_large), ("strange", strange)];
        let images = plants.map(|(name, plant)| {
            let source = publisher.home().join(name);
            plant(&source);
            let cid = publisher.pack(&source);
            let names = synthetic::files(&source).into_iter();
            let files = names.map(|name| (name.clone(), fs::read(source.join(name)).expect("just planted")));
            let archive = Archive::of(&publisher, &cid, name);
            Image { cid, files: files.filter(|(_, bytes)| !bytes.is_empty()).collect(), source, archive }
        });
        let origins = (0..ORIGINS).map(|_| Origin::over(publisher.store())).collect();
        let node = Rpc::start();
        for image in &images {
            publisher.ok(args!["publish", image.cid, "--to", node.spec()]);
        }
        let gateway = Served::by(&publisher);
        World { images: images.into(), origins, node, gateway, _publisher: publisher }
    }

    /// Where an image can be had, as `--from` names them: servers, a node, a gateway and an archive.
    pub(super) fn sources(&self, image: usize) -> Vec<String> {
        let others = [self.node.spec(), self.gateway.url(), self.images[image].archive.spec()];
        self.origins.iter().map(Origin::url).chain(others).collect()
    }

    /// Everybody is there and right from now on.
    pub(super) fn heal(&self) {
        for origin in &self.origins {
            origin.up();
            origin.heal();
            origin.link(Link::default());
        }
        self.node.heal();
        self.gateway.heals();
        self.images.iter().for_each(|image| image.archive.heals());
    }
}

fn few_large(root: &Path) {
    let tree = Builder::at(root);
    let mut rng = SplitMix64::new(91);
    for file in 0..6 {
        tree.file(format!("noise-{file}"), &rng.bytes(1_700_000 + 4_321 * file));
        tree.file(format!("text-{file}"), &rng.text(2_500_000 + 1_234 * file));
    }
    tree.finish();
}

fn strange(root: &Path) {
    random_tree::build(root, 92, 150);
}
