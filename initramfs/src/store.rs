//! Packages on this machine: fetched once, proven by the hash in the lock at every build, unpacked once.
//!
//! Below the cache folder lie `debs/FILE` and `trees/SHA256`. Both appear when they are whole. One build at a time: the
//! others wait.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::apt::{Apt, AptError};
use crate::lock::{Lock, Package};
use crate::tool::{self, ToolError};

/// Why packages are not there.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The cache folder does not work.
    #[error("the cache of packages fails at {path}")]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Neither `XDG_CACHE_HOME` nor `HOME` says where it is.
    #[error("neither XDG_CACHE_HOME nor HOME is set: say by --cache where packages are kept")]
    NoPlace,
    /// What came is not what is locked.
    #[error("{0} is not the package that is locked: its hash is another one")]
    Wrong(PathBuf),
    /// They cannot be had.
    #[error(transparent)]
    Apt(#[from] AptError),
    /// They cannot be unpacked.
    #[error(transparent)]
    Tool(#[from] ToolError),
}

/// What a fetch had to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fetched {
    /// Packages that were downloaded.
    pub packages: usize,
    /// Their bytes.
    pub size_bytes: u64,
}

/// The cache, held by this process alone.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
    _lock: File,
}

impl Store {
    /// Where the cache is when nobody says: beside what `.ci/setup` builds.
    pub fn usual() -> Result<PathBuf, StoreError> {
        let variable = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        let home = || variable("HOME").map(|home| home.join(".cache"));
        let base = || variable("XDG_CACHE_HOME").or_else(home).map(|cache| cache.join("g8os-build"));
        Ok(variable("G8_BUILD_CACHE").or_else(base).ok_or(StoreError::NoPlace)?.join("image"))
    }

    /// Opens it; waits while another build has it.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let opened = || {
            fs::create_dir_all(dir.join("debs"))?;
            fs::create_dir_all(dir.join("trees"))?;
            let lock = File::create(dir.join("lock"))?;
            lock.lock()?;
            Ok(lock)
        };
        let lock = opened().map_err(|source| StoreError::Io { path: dir.into(), source })?;
        Ok(Self { dir: dir.into(), _lock: lock })
    }

    /// apt, for what is not here.
    pub fn apt(&self, release: &str) -> Result<Apt, AptError> {
        Apt::open(&self.dir.join("apt"), release)
    }

    /// Brings all locked packages, and proves those that were here.
    pub fn fetch(&self, lock: &Lock) -> Result<Fetched, StoreError> {
        let mut missing = Vec::new();
        for package in &lock.packages {
            let path = self.deb(package);
            match package.is_in(&path) {
                Ok(true) => {}
                Ok(false) => missing.push(package),
                Err(e) if e.kind() == io::ErrorKind::NotFound => missing.push(package),
                Err(source) => return Err(StoreError::Io { path, source }),
            }
        }
        if missing.is_empty() {
            return Ok(Fetched::default());
        }
        let new = tempfile::tempdir_in(&self.dir).map_err(|e| self.failed(&self.dir, e))?;
        self.apt(&lock.release)?.download(&missing, new.path())?;
        for package in &missing {
            let path = new.path().join(&package.file);
            if !package.is_in(&path).map_err(|e| self.failed(&path, e))? {
                return Err(StoreError::Wrong(path));
            }
            fs::rename(&path, self.deb(package)).map_err(|e| self.failed(&path, e))?;
        }
        let size_bytes = missing.iter().map(|package| package.size_bytes).sum();
        Ok(Fetched { packages: missing.len(), size_bytes })
    }

    /// The files of a package that was fetched. A kernel's modules have their indexes.
    pub fn tree(&self, package: &Package) -> Result<PathBuf, StoreError> {
        let tree = self.dir.join("trees").join(&package.sha256);
        if tree.is_dir() {
            return Ok(tree);
        }
        let new = tempfile::tempdir_in(&self.dir).map_err(|e| self.failed(&self.dir, e))?;
        tool::run(Command::new("dpkg").arg("-x").arg(self.deb(package)).arg(new.path()))?;
        if let Ok(mut versions) = fs::read_dir(new.path().join("lib/modules"))
            && let Some(Ok(version)) = versions.next()
        {
            index_modules(new.path(), &version.file_name().to_string_lossy())?;
        }
        fs::rename(new.path(), &tree).map_err(|e| self.failed(&tree, e))?;
        Ok(tree)
    }

    fn deb(&self, package: &Package) -> PathBuf {
        self.dir.join("debs").join(&package.file)
    }

    fn failed(&self, path: &Path, source: io::Error) -> StoreError {
        StoreError::Io { path: path.into(), source }
    }
}

/// Runs depmod on the modules below `base/lib/modules/VERSION`.
pub fn index_modules(base: &Path, version: &str) -> Result<(), ToolError> {
    // It is in a folder that not everybody has in PATH.
    let sbin = Path::new("/usr/sbin/depmod");
    let program = if sbin.exists() { sbin } else { Path::new("depmod") };
    tool::run(Command::new(program).arg("-b").arg(base).arg(version)).map(drop)
}
