//! What there is to mount, and from where.

use std::fs;
use std::path::{Path, PathBuf};

use crate::origin::Link;
use crate::tree::Builder;
use crate::{Flist, Origin, SplitMix64, random_tree, synthetic};

/// Servers of the images.
const ORIGINS: usize = 3;

/// An image, and what is in it.
pub(super) struct Image {
    pub(super) cid: String,
    pub(super) source: PathBuf,
    /// Regular files and their bytes.
    pub(super) files: Vec<(PathBuf, Vec<u8>)>,
}

type Plant = fn(&Path);

/// All images and all servers.
pub(super) struct World {
    pub(super) images: Vec<Image>,
    pub(super) origins: Vec<Origin>,
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
            Image { cid, files: files.filter(|(_, bytes)| !bytes.is_empty()).collect(), source }
        });
        let origins = (0..ORIGINS).map(|_| Origin::over(publisher.store())).collect();
        World { images: images.into(), origins, _publisher: publisher }
    }

    /// Everybody is there and right from now on.
    pub(super) fn heal(&self) {
        for origin in &self.origins {
            origin.up();
            origin.heal();
            origin.link(Link::default());
        }
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
