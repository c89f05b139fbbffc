//! What a row works with: the trees, the images of each contender, and mounts in a known state.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use indicatif::ProgressBar;

use super::contender::{Cache, FlistPack, Image, Mount, Packer, Reader, slug};
use super::digest;
use super::options::Options;
use super::results::Extras;
use super::trees::{Tree, Trees};
use super::work::{Work, remove};
use crate::machine::{drop_caches, warm};
use crate::run::{command, run, silent};
use crate::stop;

/// Programs of the machine that rows run: not they are to be measured when the page cache is empty.
const TOOLS: [&str; 6] = ["find", "tar", "cat", "chroot", "curl", "zstd"];

/// What is in the page cache when a contender is mounted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Memory {
    /// Nothing: what is read comes from the disk.
    Empty,
    /// The image, and nothing that the contender made of it.
    Image,
    /// What is there by chance.
    AsItIs,
}

/// Everything a row needs.
pub(super) struct Bench {
    pub(super) trees: Trees,
    images: RefCell<BTreeMap<(String, Tree), Image>>,
    /// Mounted by the row that runs now.
    mounted: RefCell<BTreeSet<Tree>>,
    /// Known to serve what was packed.
    checked: RefCell<BTreeSet<(String, Tree)>>,
    count: Cell<usize>,
    progress: ProgressBar,
    /// The last field, so that it is dropped last.
    work: Work,
}

impl Bench {
    pub(super) fn new(options: &Options) -> anyhow::Result<Bench> {
        let work = Work::new(options.keep)?;
        let progress = ProgressBar::new_spinner();
        progress.enable_steady_tick(Duration::from_millis(200));
        Ok(Bench {
            trees: Trees::new(&work, options.quick),
            images: RefCell::default(),
            mounted: RefCell::default(),
            checked: RefCell::default(),
            count: Cell::default(),
            progress,
            work,
        })
    }

    /// Says what is done now; an empty text ends it.
    pub(super) fn say(&self, what: &str) {
        if what.is_empty() {
            self.progress.finish_and_clear();
        } else if std::io::stderr().is_terminal() {
            self.progress.set_message(what.to_owned());
        } else {
            eprintln!("{what}");
        }
    }

    /// A new and empty folder of this name.
    pub(super) fn folder(&self, name: &str) -> anyhow::Result<PathBuf> {
        let folder = self.work.at(name);
        remove(&folder)?;
        fs::create_dir_all(&folder)?;
        Ok(folder)
    }

    /// The image that a reader mounts, packed when it is first asked for.
    pub(super) fn image(&self, reader: &dyn Reader, tree: Tree) -> anyhow::Result<Image> {
        match reader.packer() {
            Some(packer) => self.packed_by(packer.as_ref(), tree),
            None => Ok(Image { folder: self.trees.get(tree)?.path, said: String::new() }),
        }
    }

    /// The image that is published.
    pub(super) fn packed(&self, tree: Tree) -> anyhow::Result<Image> {
        self.packed_by(&FlistPack, tree)
    }

    fn packed_by(&self, packer: &dyn Packer, tree: Tree) -> anyhow::Result<Image> {
        let key = (packer.name().to_owned(), tree);
        if let Some(image) = self.images.borrow().get(&key) {
            return Ok(image.clone());
        }
        let image = self.pack(packer, tree, &self.trees.get(tree)?.path)?;
        self.images.borrow_mut().insert(key, image.clone());
        Ok(image)
    }

    fn pack(&self, packer: &dyn Packer, tree: Tree, source: &Path) -> anyhow::Result<Image> {
        self.say(&format!("packing {} with {}", tree.name(), packer.name()));
        let folder = self.folder(&format!("images/{}/{}", slug(packer.name()), tree.name()))?;
        let said = run(&mut packer.command(source, &folder)?)?.stdout;
        Ok(Image { folder, said })
    }

    /// Mounts the tree's image. Whatever was cached before is gone, except what `cache` and `memory` say.
    pub(super) fn mount<'a>(
        &'a self,
        reader: &'a dyn Reader,
        tree: Tree,
        cache: Cache,
        memory: Memory,
    ) -> anyhow::Result<Session<'a>> {
        stop::check()?;
        let image = self.image(reader, tree)?;
        let kept = self.cache(reader);
        if cache != Cache::Kept {
            remove(&kept)?;
        }
        fs::create_dir_all(&kept)?;
        reader.prepare(&image)?;
        self.set_memory(reader, &image, memory)?;
        let at = self.next_mountpoint(reader)?;
        let began = Instant::now();
        let mount = reader.mount(&image, &at, &kept, cache)?;
        fs::symlink_metadata(mount.place()).context("looking at a new mount")?;
        let opened = began.elapsed();
        self.mounted.borrow_mut().insert(tree);
        Ok(Session { mount, opened })
    }

    fn set_memory(&self, reader: &dyn Reader, image: &Image, memory: Memory) -> anyhow::Result<()> {
        if memory == Memory::AsItIs {
            return Ok(());
        }
        drop_caches()?;
        for tool in TOOLS {
            silent(&mut command(tool, &["--version"]))?;
        }
        if let Some(program) = reader.program() {
            warm(&program)?;
        }
        if memory == Memory::Image { warm(&image.folder) } else { Ok(()) }
    }

    fn next_mountpoint(&self, reader: &dyn Reader) -> anyhow::Result<PathBuf> {
        self.count.set(self.count.get() + 1);
        self.folder(&format!("mounts/{}-{}", slug(reader.name()), self.count.get()))
    }

    fn cache(&self, reader: &dyn Reader) -> PathBuf {
        self.work.at(&format!("caches/{}", slug(reader.name())))
    }

    /// After a row: proves what it has read, once per contender and tree, and removes the contender's cache.
    pub(super) fn finish(&self, reader: &dyn Reader) -> anyhow::Result<()> {
        let mounted = self.mounted.take();
        for tree in mounted {
            let key = (reader.name().to_owned(), tree);
            if reader.packer().is_none() || self.checked.borrow().contains(&key) {
                continue;
            }
            self.say(&format!("comparing {} as {} serves it with its source", tree.name(), reader.name()));
            let (source, digest) = (self.trees.get(tree)?.path, self.trees.digest(tree)?);
            let session = self.mount(reader, tree, Cache::Kept, Memory::AsItIs)?;
            digest::compare(&source, digest, session.place())?;
            session.end()?;
            self.checked.borrow_mut().insert(key);
        }
        self.mounted.borrow_mut().clear();
        remove(&self.cache(reader))
    }
}

/// A mount that a row works in. It is unmounted on drop too, when a step has failed.
pub(super) struct Session<'a> {
    mount: Box<dyn Mount + 'a>,
    /// From the start of the command to the first successful stat.
    pub(super) opened: Duration,
}

impl Session<'_> {
    pub(super) fn place(&self) -> &Path {
        self.mount.place()
    }

    /// Milliseconds that mounting took inside the daemon, if it says so.
    pub(super) fn opened_inside_ms(&self) -> Option<f64> {
        self.mount.opened_inside_ms()
    }

    /// What the mount has moved since it was made.
    pub(super) fn traffic(&self) -> anyhow::Result<Extras> {
        self.mount.traffic()
    }

    /// What it has moved since then.
    pub(super) fn since(&self, before: &Extras) -> anyhow::Result<Extras> {
        let now = self.traffic()?;
        Ok(now.into_iter().map(|(key, n)| (key, n - before.get(key).unwrap_or(&0.0))).collect())
    }

    /// Memory of its daemon, if it has one.
    pub(super) fn memory(&self) -> anyhow::Result<Option<Extras>> {
        self.mount.memory()
    }

    pub(super) fn end(mut self) -> anyhow::Result<()> {
        // Says whether a read failed.
        self.traffic()?;
        self.mount.end()
    }
}
