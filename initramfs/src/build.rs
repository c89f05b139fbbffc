//! The whole line, from a recipe to the files that a machine boots.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::apt::AptError;
use crate::assemble::{self, AssembleError, Programs};
use crate::lock::{Lock, LockError, now};
use crate::media::{MediaError, disk, ipxe, iso, uki};
use crate::modules::{self, ModulesError};
use crate::pool::Pool;
use crate::recipe::{Kernel, Media, Recipe, RecipeError};
use crate::resolve;
use crate::store::{Store, StoreError};
use crate::tree::{Content, Node, PLAIN, Tree};
use crate::{cpio, manifest, report};

/// Folder for the parts that `initramfs serve` makes ISOs of, below the output folder.
pub const PARTS: &str = "ipxe";

/// What to build, and from what.
#[derive(Clone, Debug)]
pub struct Options {
    /// The recipe. Its name is part of the names of what is built, unless it is `node`.
    pub recipe: PathBuf,
    /// The lock.
    pub lock: PathBuf,
    /// When the mirror has dropped locked versions: make a lock of today for this build, in the output folder.
    pub relock: bool,
    /// Where `core0` and `core0-init` are.
    pub programs: PathBuf,
    /// Where packages are kept.
    pub cache: PathBuf,
    /// Where the files go.
    pub output: PathBuf,
    /// Files of this machine that go into the image, and where.
    pub with: Vec<(String, PathBuf)>,
}

/// Why nothing was built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The recipe.
    #[error(transparent)]
    Recipe(#[from] RecipeError),
    /// The lock.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// It has no kernel.
    #[error("{0} is the recipe of a system flist, and has nothing to boot: `initramfs system` follows it")]
    NoImage(PathBuf),
    /// It has one.
    #[error("{0} is the recipe of an image: `initramfs build` follows it")]
    NoSystem(PathBuf),
    /// A system flist would hold a program that is in none.
    #[error(
        "{recipe} takes {path}: no system flist has mc, git or ssh, so that nobody gets in but by commands of the node"
    )]
    Refused {
        /// The recipe.
        recipe: PathBuf,
        /// The program.
        path: String,
    },
    /// The lock has no kernel, or not the one that its package brings.
    #[error("the lock {0} has no kernel: `make image-lock` makes a new one")]
    NoKernel(PathBuf),
    /// Locked versions are gone from the mirror, and from this machine's cache.
    #[error("the mirror no longer has what {lock} names ({}): `make image-lock` locks today's versions; commit that", .gone.join("; "))]
    Stale {
        /// The lock.
        lock: PathBuf,
        /// What apt says is gone.
        gone: Vec<String>,
    },
    /// Who made the lock had a clock that was ahead, or this machine's is behind.
    #[error(
        "{lock} was made on a day that has not come ({made} s since 1970), to which all machines would set their clocks: set the clock of \
         this machine, or `make image-lock` locks anew"
    )]
    Ahead {
        /// The lock.
        lock: PathBuf,
        /// Its time, in seconds since 1970.
        made: u64,
    },
    /// This machine does not say which release it is.
    #[error("/etc/os-release names no release: the images are made from Debian's packages, on Debian")]
    NoRelease,
    /// The packages.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The files.
    #[error(transparent)]
    Assemble(#[from] AssembleError),
    /// The modules.
    #[error(transparent)]
    Modules(#[from] ModulesError),
    /// The media.
    #[error(transparent)]
    Media(#[from] MediaError),
    /// The output folder.
    #[error("cannot write {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// What came out.
#[derive(Clone, Debug)]
pub struct Built {
    /// The files and their sizes.
    pub files: Vec<(PathBuf, u64)>,
    /// Bytes of the initramfs before compression.
    pub unpacked_bytes: u64,
    /// SHA-256 of the manifest of the image.
    pub build_id: String,
    /// How long it took.
    pub took: Duration,
}

/// Builds all files of a recipe.
pub fn build(options: &Options) -> Result<Built, BuildError> {
    let began = Instant::now();
    let recipe = Recipe::load(&options.recipe)?;
    let (Some(wanted), Some(media)) = (&recipe.kernel, &recipe.media) else {
        return Err(BuildError::NoImage(options.recipe.clone()));
    };
    let names = Names::of(&options.recipe, &options.output);
    let output = |source| BuildError::Io { path: options.output.clone(), source };
    fs::create_dir_all(&options.output).map_err(output)?;
    // On the same file system as what comes out of it, so that it can be renamed.
    let work = tempfile::tempdir_in(&options.output).map_err(output)?;
    let stripped = work.path().join("programs");
    fs::create_dir(&stripped).map_err(output)?;
    let programs = Programs { built: options.programs.clone(), stripped };
    let store = Store::open(&options.cache)?;

    let lock = packages(options, &recipe, &programs, &store)?;
    let step = report::step("taking files");
    let pool = Pool::open(&lock.packages, &store)?;
    let mut tree = assemble::assemble(&recipe, &pool, &programs)?.tree;
    step.done(&format!("{} files and folders", tree.iter().count()));

    let kernel = lock.kernel().ok_or_else(|| BuildError::NoKernel(options.lock.clone()))?;
    let version = kernel.name.strip_prefix("linux-image-").expect("it is how a kernel is known").to_owned();
    let kernel = store.tree(kernel)?;
    let step = report::step("taking modules");
    let from = kernel.join("lib/modules").join(&version);
    let count = modules::install(&from, &version, &wanted.modules, &work.path().join("modules"), &mut tree)?;
    step.done(&format!("{count} of Linux {version}"));
    for (place, file) in &options.with {
        let bytes = fs::read(file).map_err(|source| BuildError::Io { path: file.clone(), source })?;
        tree.insert(place, Node::File(Content::Bytes(bytes), PLAIN));
    }
    let vmlinuz = kernel.join(format!("boot/vmlinuz-{version}"));
    let build_id = manifest::insert(&mut tree, &vmlinuz, lock.made).map_err(output)?;

    let step = report::step("compressing");
    let initramfs = work.path().join("initramfs");
    let unpacked_bytes = pack(&tree, recipe.level, &initramfs)?;
    step.done(&format!("{} at level {}", report::size(unpacked_bytes), recipe.level));

    let step = report::step("making media");
    let vmlinuz = work.path().join("vmlinuz");
    copy(&kernel.join(format!("boot/vmlinuz-{version}")), &vmlinuz)?;
    let made = make_media(wanted, media, &pool, [&vmlinuz, &initramfs], work.path())?;
    step.done("UKI, disk and ISO");
    let mut files = Vec::new();
    parts(media, &pool)?.copy(&options.output.join(PARTS))?;
    for (from, to) in [vmlinuz, initramfs].iter().chain(&made).zip(names.all()) {
        fs::rename(from, &to).map_err(|source| BuildError::Io { path: to.clone(), source })?;
        let length = fs::metadata(&to).map_err(|source| BuildError::Io { path: to.clone(), source })?.len();
        files.push((to, length));
    }
    Ok(Built { files, unpacked_bytes, build_id, took: began.elapsed() })
}

/// The locked packages, all of them here.
pub(crate) fn packages(
    options: &Options,
    recipe: &Recipe,
    programs: &Programs,
    store: &Store,
) -> Result<Lock, BuildError> {
    let lock = Lock::load(&options.lock)?;
    if lock.is_ahead(now()) {
        return Err(BuildError::Ahead { lock: options.lock.clone(), made: lock.made });
    }
    let step = report::step("looking for packages");
    match store.fetch(&lock) {
        Ok(fetched) => {
            let size = report::size(fetched.size_bytes);
            step.done(&format!("{}, {} of them ({size}) fetched", lock.packages.len(), fetched.packages));
            Ok(lock)
        }
        // The mirror has moved on, or this machine has another release than the lock.
        Err(StoreError::Apt(e @ (AptError::Dropped(_) | AptError::NoSource(_)))) if options.relock => {
            step.done(&e.to_string());
            eprintln!(
                "initramfs: warning: {} is out of date: this build takes today's packages",
                options.lock.display()
            );
            let lock = resolve::resolve(recipe, programs, store)?;
            lock.save(&options.output.join("packages.lock"))?;
            Ok(lock)
        }
        Err(StoreError::Apt(AptError::Dropped(gone))) => {
            Err(BuildError::Stale { lock: options.lock.clone(), gone })
        }
        Err(e) => Err(e.into()),
    }
}

/// Writes the initramfs and returns how long it is before compression.
fn pack(tree: &Tree, level: i32, to: &Path) -> Result<u64, BuildError> {
    let write = || {
        let mut encoder = zstd::Encoder::new(BufWriter::new(File::create(to)?), level)?;
        // The kernel unpacks with a window of 8 MiB at most, and checks nothing.
        encoder.window_log(23)?;
        let length = cpio::write(tree, &mut encoder)?;
        encoder.finish()?.flush()?;
        Ok(length)
    };
    write().map_err(|source| BuildError::Io { path: to.into(), source })
}

/// The parts of an ISO that fetches the rest.
fn parts(media: &Media, pool: &Pool) -> Result<ipxe::Parts, BuildError> {
    Ok(ipxe::Parts {
        bios: part(pool, &media.ipxe_bios)?,
        efi: part(pool, &media.ipxe_efi)?,
        isolinux: part(pool, &media.isolinux)?,
        ldlinux: part(pool, &media.ldlinux)?,
        boot_sector: part(pool, &media.boot_sector)?,
    })
}

/// A file that media are made with.
fn part(pool: &Pool, path: &str) -> Result<PathBuf, AssembleError> {
    let found = pool.find(path).ok_or_else(|| AssembleError::Missing(path.into()));
    found.map(|found| found.source.clone())
}

/// UKI, disk image and ISO, in this order.
fn make_media(
    Kernel { arguments, .. }: &Kernel,
    media: &Media,
    pool: &Pool,
    [kernel, initramfs]: [&Path; 2],
    work: &Path,
) -> Result<[PathBuf; 3], BuildError> {
    let part = |path: &str| part(pool, path);
    let read = |path: &Path| fs::read(path).map_err(|source| BuildError::Io { path: path.into(), source });
    let [program, disk_image, iso_image] = ["uki", "disk", "iso.img"].map(|name| work.join(name));
    let uki = uki::uki(&read(&part(&media.stub)?)?, &read(kernel)?, &read(initramfs)?, arguments)?;
    fs::write(&program, uki).map_err(|source| BuildError::Io { path: program.clone(), source })?;
    disk::disk(&program, &disk_image)?;
    let parts = iso::Parts {
        kernel: kernel.into(),
        initramfs: initramfs.into(),
        uki: program.clone(),
        isolinux: part(&media.isolinux)?,
        ldlinux: part(&media.ldlinux)?,
        boot_sector: part(&media.boot_sector)?,
        arguments: arguments.clone(),
    };
    iso::iso(&parts, work, &iso_image)?;
    Ok([program, disk_image, iso_image])
}

fn copy(from: &Path, to: &Path) -> Result<(), BuildError> {
    fs::copy(from, to).map(drop).map_err(|source| BuildError::Io { path: from.into(), source })
}

/// What the files are called.
pub struct Names {
    output: PathBuf,
    suffix: String,
}

impl Names {
    /// Those of a recipe, in a folder.
    pub fn of(recipe: &Path, output: &Path) -> Self {
        let stem = recipe.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        let suffix = if stem == "node" { String::new() } else { format!("-{stem}") };
        Self { output: output.into(), suffix }
    }

    /// Kernel, initramfs, UKI, disk and ISO. The kernel is the same for all recipes.
    pub fn all(&self) -> [PathBuf; 5] {
        let suffix = &self.suffix;
        [
            "vmlinuz".to_owned(),
            format!("initramfs{suffix}.cpio.zst"),
            format!("g8os{suffix}.efi"),
            format!("g8os{suffix}.img"),
            format!("g8os{suffix}.iso"),
        ]
        .map(|name| self.output.join(name))
    }
}

/// Makes a lock of today's packages for some recipes beside that of `options`, and for that, and says what changed.
pub fn lock(options: &Options, others: &[&str]) -> Result<(), BuildError> {
    let others = others.iter().map(|name| options.recipe.with_file_name(name));
    let recipes = others.chain([options.recipe.clone()]).map(|path| Recipe::load(&path));
    let recipes: Vec<_> = recipes.collect::<Result<_, _>>()?;
    let store = Store::open(&options.cache)?;
    let work = tempfile::tempdir().map_err(|source| BuildError::Io { path: std::env::temp_dir(), source })?;
    let programs = Programs { built: options.programs.clone(), stripped: work.path().into() };
    let old = if options.lock.exists() { Lock::load(&options.lock)? } else { Lock::default() };
    let mut new = Lock::default();
    for recipe in &recipes {
        let Lock { release, made, packages } = resolve::resolve(recipe, &programs, &store)?;
        new.release = release;
        new.made = made;
        new.packages.extend(packages);
    }
    new.packages.sort();
    new.packages.dedup();
    new.dated_as(&old);
    let line = |package: &crate::lock::Package| format!("{} {}", package.name, package.version);
    let before: BTreeSet<String> = old.packages.iter().map(line).collect();
    let after: BTreeSet<String> = new.packages.iter().map(line).collect();
    for gone in before.difference(&after) {
        println!("- {gone}");
    }
    for come in after.difference(&before) {
        println!("+ {come}");
    }
    new.save(&options.lock)?;
    Ok(())
}
