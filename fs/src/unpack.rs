//! Unpacking: an image becomes a directory tree again, in every attribute.
//!
//! Everything is made below the target with calls that take a directory and a name, so no symlink in the image or in
//! the target can lead a write outside. Attributes of directories are set last, from the leaves up, since making
//! entries changes them.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::fs::{self, AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};

use crate::beneath;
use crate::erofs::{FileKind, Inode, Nid};
use crate::filesystem::{Filesystem, FsError};

/// Contents are read in pieces of this size.
const STEP: u64 = 1 << 20;

/// Why an image was not unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The system refused something.
    #[error("{path}: {action}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What it said.
        #[source]
        source: io::Error,
    },
    /// The contents of a file cannot be had.
    #[error("{0}")]
    Contents(PathBuf, #[source] FsError),
    /// The target holds something.
    #[error("{0} is not empty: unpack into a new or an empty directory")]
    NotEmpty(PathBuf),
    /// Somebody asked to stop.
    #[error("interrupted: {0} is not complete")]
    Cancelled(PathBuf),
}

/// Something that only root may restore and was left out.
#[derive(Clone, Debug, serde::Serialize)]
pub struct LeftOut {
    /// Which file.
    #[serde(serialize_with = "crate::paths::lossy")]
    pub path: PathBuf,
    /// What of it.
    pub what: &'static str,
}

/// What an unpack did.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct UnpackReport {
    /// Inodes made.
    pub inodes: u64,
    /// Bytes of contents written.
    pub bytes: u64,
    /// What needs root and was run without.
    pub left_out: Vec<LeftOut>,
}

/// Unpacks `image` into `target`, which is made if it is missing. Runs reads on `runtime`.
pub fn unpack(
    image: &Filesystem,
    target: &Path,
    runtime: &tokio::runtime::Handle,
    written: &AtomicU64,
    cancel: &AtomicBool,
) -> Result<UnpackReport, UnpackError> {
    let io_error =
        |action| move |source: io::Error| UnpackError::Io { path: target.to_owned(), action, source };
    std::fs::create_dir_all(target).map_err(io_error("making the directory"))?;
    if std::fs::read_dir(target).map_err(io_error("listing it"))?.next().is_some() {
        return Err(UnpackError::NotEmpty(target.to_owned()));
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = fs::open(target, flags, Mode::empty()).map_err(|e| io_error("opening it")(e.into()))?;
    let mut run = Run {
        image,
        target,
        root,
        runtime,
        written,
        privileged: rustix::process::geteuid().is_root(),
        user: (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw()),
        owners_told: false,
        made: HashMap::new(),
        never_made: HashSet::new(),
        cancel,
        report: UnpackReport::default(),
    };
    run.tree()?;
    Ok(run.report)
}

struct Run<'a> {
    image: &'a Filesystem,
    target: &'a Path,
    root: OwnedFd,
    runtime: &'a tokio::runtime::Handle,
    written: &'a AtomicU64,
    privileged: bool,
    /// Who owns what is made without privileges.
    user: (u32, u32),
    owners_told: bool,
    /// Where an inode with several names was made first.
    made: HashMap<Nid, (Vec<u8>, Vec<u8>)>,
    /// Devices that could not be made, whatever their names.
    never_made: HashSet<Nid>,
    cancel: &'a AtomicBool,
    report: UnpackReport,
}

/// The path of directory `index`; every directory comes after the one it lies in.
fn path_of(directories: &[(usize, Vec<u8>, Inode)], mut index: usize) -> Vec<u8> {
    let mut names = Vec::new();
    while index != 0 {
        names.push(directories[index].1.as_slice());
        index = directories[index].0;
    }
    names.reverse();
    names.join(&b'/')
}

type Step<T> = Result<T, (&'static str, io::Error)>;

fn step<T>(action: &'static str, result: rustix::io::Result<T>) -> Step<T> {
    result.map_err(|e| (action, e.into()))
}

impl Run<'_> {
    fn tree(&mut self) -> Result<(), UnpackError> {
        let tree = &self.image.image().tree;
        let root = self.image.inode(tree.root()).map_err(|e| UnpackError::Contents(self.target.into(), e))?;
        // Each directory by the one above it and its name: whole paths of a deep tree would be quadratic.
        let mut directories: Vec<(usize, Vec<u8>, Inode)> = vec![(0, Vec::new(), root)];
        let mut pending = vec![0];
        while let Some(index) = pending.pop() {
            let path = path_of(&directories, index);
            let here = self.show(&path);
            let damaged = |e| UnpackError::Contents(here.clone(), FsError::Tree(e));
            let inode = directories[index].2;
            let dir = self.open(&path)?;
            for entry in tree.read_dir(&inode, 0).map_err(damaged)? {
                let entry = entry.map_err(damaged)?;
                self.go_on()?;
                if entry.name == b"." || entry.name == b".." {
                    continue;
                }
                let child = tree.inode(entry.nid).map_err(damaged)?;
                self.entry(&dir, &path, entry.name, &child)?;
                if child.is_dir() {
                    pending.push(directories.len());
                    directories.push((index, entry.name.to_vec(), child));
                }
            }
        }
        for index in (0..directories.len()).rev() {
            let path = path_of(&directories, index);
            let dir = self.open(&path)?;
            let done = self.attributes(&dir, b".", &directories[index].2, &path);
            done.map_err(|(action, source)| UnpackError::Io { path: self.show(&path), action, source })?;
        }
        self.report.inodes += 1;
        Ok(())
    }

    fn go_on(&self) -> Result<(), UnpackError> {
        if self.cancel.load(Ordering::Relaxed) {
            return Err(UnpackError::Cancelled(self.target.to_owned()));
        }
        Ok(())
    }

    fn show(&self, path: &[u8]) -> PathBuf {
        self.target.join(OsStr::from_bytes(path))
    }

    fn open(&self, path: &[u8]) -> Result<OwnedFd, UnpackError> {
        beneath::open(self.root.as_fd(), path, OFlags::RDONLY | OFlags::DIRECTORY).map_err(|source| {
            UnpackError::Io { path: self.show(path), action: "opening the directory", source }
        })
    }

    /// Makes one entry and all its attributes, except those of directories.
    fn entry(&mut self, dir: &OwnedFd, parent: &[u8], name: &[u8], inode: &Inode) -> Result<(), UnpackError> {
        let path = beneath::join(parent, name);
        let failed = |(action, source)| UnpackError::Io { path: self.show(&path), action, source };
        if let Some((first_dir, first_name)) = self.made.get(&inode.nid) {
            let from = self.open(first_dir)?;
            let linked = fs::linkat(&from, first_name.as_slice(), dir, name, AtFlags::empty());
            return step("making the hard link", linked).map_err(failed);
        }
        if self.never_made.contains(&inode.nid) {
            self.leave_out(&path, "device");
            return Ok(());
        }
        let made = match inode.kind() {
            FileKind::Directory => step("making the directory", fs::mkdirat(dir, name, Mode::RWXU)),
            FileKind::Regular => self.file(dir, name, inode, &path)?,
            FileKind::Symlink => {
                let target = self.image.image().tree.read_link(inode);
                let target = target.map_err(|e| UnpackError::Contents(self.show(&path), e.into()))?;
                step("making the symlink", fs::symlinkat(target, dir, name))
            }
            FileKind::CharDevice | FileKind::BlockDevice if !self.privileged => {
                self.never_made.insert(inode.nid);
                self.leave_out(&path, "device");
                return Ok(());
            }
            FileKind::CharDevice => self.node(dir, name, inode, FileType::CharacterDevice),
            FileKind::BlockDevice => self.node(dir, name, inode, FileType::BlockDevice),
            FileKind::Fifo => self.node(dir, name, inode, FileType::Fifo),
            FileKind::Socket => self.node(dir, name, inode, FileType::Socket),
        };
        let failed = |(action, source)| UnpackError::Io { path: self.show(&path), action, source };
        made.map_err(failed)?;
        self.report.inodes += 1;
        if inode.is_dir() {
            return Ok(());
        }
        if inode.nlink > 1 {
            self.made.insert(inode.nid, (parent.to_vec(), name.to_vec()));
        }
        let done = self.attributes(dir, name, inode, &path);
        done.map_err(|(action, source)| UnpackError::Io { path: self.show(&path), action, source })
    }

    fn node(&self, dir: &OwnedFd, name: &[u8], inode: &Inode, kind: FileType) -> Step<()> {
        let device = fs::makedev(inode.rdev.major, inode.rdev.minor);
        step("making the node", fs::mknodat(dir, name, kind, Mode::RUSR, device))
    }

    fn file(
        &mut self,
        dir: &OwnedFd,
        name: &[u8],
        inode: &Inode,
        path: &[u8],
    ) -> Result<Step<()>, UnpackError> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = match fs::openat(dir, name, flags, Mode::RUSR | Mode::WUSR) {
            Ok(fd) => File::from(fd),
            Err(e) => return Ok(Err(("making the file", e.into()))),
        };
        if let Err(e) = file.set_len(inode.size) {
            return Ok(Err(("sizing the file", e)));
        }
        let shown = self.show(path);
        let failed = |e| UnpackError::Contents(shown.clone(), e);
        let mut at = 0;
        while at < inode.size {
            self.go_on()?;
            let mapping = self.image.image().tree.map(inode, at).map_err(|e| failed(e.into()))?;
            let len = mapping.len.min(STEP);
            if matches!(mapping.place, crate::erofs::Place::Hole) {
                at += mapping.len;
                continue;
            }
            let contents = match self.image.read_now(inode.nid, at, len as u32).map_err(failed)? {
                Some(contents) => contents,
                None => self.runtime.block_on(self.image.read(inode.nid, at, len as u32)).map_err(failed)?,
            };
            if contents.as_ref().iter().any(|b| *b != 0)
                && let Err(e) = file.write_all_at(contents.as_ref(), at)
            {
                return Ok(Err(("writing the file", e)));
            }
            self.report.bytes += len;
            self.written.fetch_add(len, Ordering::Relaxed);
            at += len;
        }
        Ok(Ok(()))
    }

    /// Owner, then xattrs (a change of owner drops capabilities), then mode (it drops set-user-ID too), then times.
    fn attributes(&mut self, dir: &OwnedFd, name: &[u8], inode: &Inode, path: &[u8]) -> Step<()> {
        let mut permissions = inode.permissions();
        if self.privileged {
            let owner = (Some(Uid::from_raw(inode.uid)), Some(Gid::from_raw(inode.gid)));
            step("setting the owner", fs::chownat(dir, name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW))?;
        } else if (inode.uid, inode.gid) != self.user {
            // It belongs to whoever unpacks: with these bits it would run as them instead of its owner.
            permissions &= !0o6000;
            if !std::mem::replace(&mut self.owners_told, true) {
                self.leave_out(path, "owner, and so all other owners,");
            }
        }
        self.xattrs(dir, name, inode, path)?;
        if !inode.is_symlink() {
            // By a descriptor: chmodat follows a symlink that somebody may have put in its place.
            let held =
                fs::openat(dir, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty());
            let held = step("setting the mode", held)?;
            let mode = Mode::from_raw_mode(permissions.into());
            step("setting the mode", fs::chmod(format!("/proc/self/fd/{}", held.as_raw_fd()), mode))?;
        }
        let time = Timespec { tv_sec: inode.mtime.secs, tv_nsec: inode.mtime.nanos.into() };
        let times = Timestamps { last_access: time, last_modification: time };
        step("setting the times", fs::utimensat(dir, name, &times, AtFlags::SYMLINK_NOFOLLOW))
    }

    fn xattrs(&mut self, dir: &OwnedFd, name: &[u8], inode: &Inode, path: &[u8]) -> Step<()> {
        let tree = &self.image.image().tree;
        let damaged = |e| ("reading its extended attributes", io::Error::other(e));
        // No call sets the xattr of a symlink or device by descriptor and name.
        let mut through = format!("/proc/self/fd/{}/", dir.as_raw_fd()).into_bytes();
        through.extend_from_slice(name);
        for xattr in tree.xattrs(inode).map_err(damaged)? {
            let xattr = xattr.map_err(damaged)?;
            let full = [xattr.prefix, xattr.name].concat();
            match fs::lsetxattr(through.as_slice(), full.as_slice(), xattr.value, XattrFlags::empty()) {
                Ok(()) => {}
                Err(rustix::io::Errno::PERM) if !self.privileged => {
                    self.report.left_out.push(LeftOut { path: self.show(path), what: "extended attribute" });
                }
                Err(e) => return Err(("setting an extended attribute", e.into())),
            }
        }
        Ok(())
    }

    fn leave_out(&mut self, path: &[u8], what: &'static str) {
        self.report.left_out.push(LeftOut { path: self.show(path), what });
    }
}
