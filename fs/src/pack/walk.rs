//! The walk: every inode of a tree, in the order it gets in the image.
//!
//! A directory, then all its entries side by side, then the subtrees: what is listed together lies together. Names are
//! sorted bytewise, so the order does not depend on the file system. Directories are opened below the root without
//! following symlinks, so a tree that changes under us cannot lead outside, and paths may be longer than `PATH_MAX`.

use std::collections::HashMap;
use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rayon::iter::{IntoParallelRefIterator, ParallelIterator};
use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, Stat};

use super::{PackError, PackOptions, Progress};
use crate::beneath;
use crate::erofs::{Mtime, Xattr, check_xattrs};

/// Longest xattr list or value the kernel hands out.
const XATTR_MAX: usize = 65536;

/// File systems without contents of their own (statfs(2), linux/magic.h).
const UNREAL: [(u64, &str); 7] = [
    (0x9fa0, "procfs"),
    (0x6265_6572, "sysfs"),
    (0x0027_e0eb, "a cgroup"),
    (0x6367_7270, "a cgroup"),
    (0x6462_6720, "debugfs"),
    (0x7472_6163, "tracefs"),
    (0x7363_6673, "securityfs"),
];

/// An inode of the source tree.
#[derive(Debug)]
pub(super) struct Entry {
    /// The directory in which it was first met; its own index for the root.
    pub parent: u32,
    /// Its name there.
    pub name: Vec<u8>,
    /// The directory of the root that it is or lies in; 0 for the root and the files directly in it.
    pub top: u32,
    pub stat: Stat,
    pub xattrs: Vec<Xattr>,
    pub kind: Kind,
}

#[derive(Debug)]
pub(super) enum Kind {
    /// Names and entry indexes, in order; hardlinks point to where the inode was first met.
    Directory(Vec<(Vec<u8>, u32)>),
    Regular,
    Symlink(Vec<u8>),
    CharDevice,
    BlockDevice,
    Fifo,
    Socket,
}

/// The walked tree.
#[derive(Debug)]
pub(super) struct Tree {
    root: OwnedFd,
    path: PathBuf,
    pub entries: Vec<Entry>,
    /// What went away between being listed and being looked at; only with `skip_changed`.
    pub vanished: Vec<PathBuf>,
}

impl Tree {
    /// Path of an entry below the root, for the kernel.
    fn relative(&self, index: u32) -> Vec<u8> {
        relative(&self.entries, index)
    }

    /// Path of an entry as the user knows it.
    pub fn display(&self, index: u32) -> PathBuf {
        self.path.join(OsStr::from_bytes(&self.relative(index)))
    }

    /// Opens a regular file of the tree for reading.
    pub fn open(&self, index: u32) -> io::Result<std::fs::File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        Ok(beneath::open(self.root.as_fd(), &self.relative(index), flags)?.into())
    }
}

fn relative(entries: &[Entry], mut index: u32) -> Vec<u8> {
    let mut names = Vec::new();
    while index != 0 {
        let entry = &entries[index as usize];
        names.push(entry.name.as_slice());
        index = entry.parent;
    }
    names.reverse();
    names.join(&b'/')
}

/// Walks the tree below `dir`.
pub(super) fn walk(
    dir: &Path,
    options: &PackOptions,
    progress: &Progress,
    cancel: &AtomicBool,
) -> Result<Tree, PackError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let open = || -> io::Result<(OwnedFd, Stat)> {
        let root = fs::open(dir, flags, Mode::empty())?;
        let stat = fs::fstat(&root)?;
        Ok((root, stat))
    };
    let (root, stat) = open().map_err(PackError::io(dir, "opening the tree to pack"))?;
    let through = format!("/proc/self/fd/{}/.", root.as_raw_fd());
    let xattrs = xattrs(Path::new(&through)).map_err(|trouble| trouble.about(dir.to_owned()))?;
    let scan = Scan { root: &root, path: dir, root_dev: stat.st_dev, options, progress, cancel };
    let listings = scan.all(stat.st_dev)?;
    let mut tree = Tree { root, path: dir.to_owned(), entries: Vec::new(), vanished: Vec::new() };
    tree.entries.push(Entry {
        parent: 0,
        name: Vec::new(),
        top: 0,
        stat,
        xattrs,
        kind: Kind::Directory(Vec::new()),
    });
    order(&mut tree, listings, progress)?;
    Ok(tree)
}

/// Brings what was scanned into the order of the image.
fn order(tree: &mut Tree, mut listings: Vec<Listing>, progress: &Progress) -> Result<(), PackError> {
    // Inodes with several names, by device and inode number.
    let mut seen: HashMap<(u64, u64), u32> = HashMap::new();
    let mut pending = vec![(0, 0)];
    while let Some((index, listing)) = pending.pop() {
        let listing = std::mem::take(&mut listings[listing]);
        tree.vanished.extend(listing.vanished);
        let mut names = Vec::with_capacity(listing.entries.len());
        let mut below = Vec::new();
        for Listed { name, looked, listing } in listing.entries {
            let Looked { stat, kind, xattrs } = looked;
            let linked = stat.st_nlink > 1 && !matches!(kind, Kind::Directory(_));
            let key = (stat.st_dev, stat.st_ino);
            if linked && let Some(first) = seen.get(&key) {
                names.push((name, *first));
                continue;
            }
            let added = u32::try_from(tree.entries.len())
                .map_err(|_| PackError::TooLarge("it has more than 2^32 inodes".into()))?;
            if linked {
                seen.insert(key, added);
            }
            if matches!(kind, Kind::Regular) {
                progress.bytes_found.fetch_add(stat.st_size as u64, Ordering::Relaxed);
            }
            let top = match (index, &kind) {
                (0, Kind::Directory(_)) => added,
                (_, _) => tree.entries[index as usize].top,
            };
            below.extend(listing.map(|listing| (added, listing)));
            tree.entries.push(Entry { parent: index, name: name.clone(), top, stat, xattrs, kind });
            names.push((name, added));
        }
        tree.entries[index as usize].kind = Kind::Directory(names);
        pending.extend(below.into_iter().rev());
    }
    Ok(())
}

/// What a directory holds, in order.
#[derive(Default)]
struct Listing {
    entries: Vec<Listed>,
    vanished: Vec<PathBuf>,
}

struct Listed {
    name: Vec<u8>,
    looked: Looked,
    /// Number of the listing of a directory; none for what is not one, or is not to be entered.
    listing: Option<usize>,
}

/// A directory that is to be listed.
struct Found {
    relative: Vec<u8>,
    /// Device of the directory that it lies in.
    parent_dev: u64,
    dev: u64,
}

/// Listing and looking, on all processors: level by level, so that no depth of the tree is too much.
struct Scan<'a> {
    root: &'a OwnedFd,
    path: &'a Path,
    root_dev: u64,
    options: &'a PackOptions,
    progress: &'a Progress,
    cancel: &'a AtomicBool,
}

impl Scan<'_> {
    /// The listings of all directories; the root's is the first.
    fn all(&self, root_dev: u64) -> Result<Vec<Listing>, PackError> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(self.options.threads).build();
        let pool = pool.map_err(|e| {
            PackError::io(self.path, "starting the threads that walk it")(io::Error::other(e))
        })?;
        let mut listings: Vec<Listing> = Vec::new();
        // The root counts as a border, so that a tree of an unreal file system is seen.
        let mut level =
            vec![Found { relative: Vec::new(), parent_dev: root_dev.wrapping_add(1), dev: root_dev }];
        while !level.is_empty() {
            let listed: Vec<Result<Listing, PackError>> =
                pool.install(|| level.par_iter().map(|dir| self.directory(dir)).collect());
            let (first, count) = (listings.len(), level.len());
            let mut next = Vec::new();
            for (dir, listed) in level.iter().zip(listed) {
                let mut listing = listed?;
                for entry in &mut listing.entries {
                    let stat = &entry.looked.stat;
                    let is_dir = matches!(entry.looked.kind, Kind::Directory(_));
                    if is_dir && !self.is_foreign(stat) {
                        entry.listing = Some(first + count + next.len());
                        let relative = beneath::join(&dir.relative, &entry.name);
                        next.push(Found { relative, parent_dev: dir.dev, dev: stat.st_dev });
                    }
                }
                listings.push(listing);
            }
            level = next;
        }
        Ok(listings)
    }

    /// Whether it is on another file system, and is to be left there.
    fn is_foreign(&self, stat: &Stat) -> bool {
        self.options.one_file_system && stat.st_dev != self.root_dev
    }

    fn display(&self, relative: &[u8]) -> PathBuf {
        self.path.join(OsStr::from_bytes(relative))
    }

    fn directory(&self, found: &Found) -> Result<Listing, PackError> {
        if self.cancel.load(Ordering::Relaxed) {
            return Err(PackError::Cancelled);
        }
        let relative = &found.relative;
        let mut listing = Listing::default();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        let dir = match beneath::open(self.root.as_fd(), relative, flags) {
            Ok(dir) => dir,
            Err(e) if rustix::io::Errno::from_io_error(&e).is_some_and(is_gone) => {
                // What may be left out stays as an empty directory: it was there when it was listed.
                self.gone(&mut listing, self.display(relative))?;
                return Ok(listing);
            }
            Err(e) => return Err(PackError::io(self.display(relative), "opening the directory")(e)),
        };
        if found.parent_dev != found.dev {
            self.refuse_unreal(relative, &dir)?;
        }
        let mut names = read_names(&dir)
            .map_err(|e| PackError::io(self.display(relative), "listing the directory")(e))?;
        names.sort_unstable();
        for name in names {
            let path = beneath::join(relative, &name);
            if self.options.filter.excludes(Path::new(OsStr::from_bytes(&path))) {
                continue;
            }
            let looked = match look(&dir, &name).map_err(|trouble| trouble.about(self.display(&path))) {
                Ok(looked) => looked,
                Err(PackError::Changed(path)) => {
                    self.gone(&mut listing, path)?;
                    continue;
                }
                Err(other) => return Err(other),
            };
            // A file of another file system is bound here; what it hides is not to be had.
            if self.is_foreign(&looked.stat) && !matches!(looked.kind, Kind::Directory(_)) {
                continue;
            }
            self.progress.entries.fetch_add(1, Ordering::Relaxed);
            listing.entries.push(Listed { name, looked, listing: None });
        }
        Ok(listing)
    }

    /// The kernel's own file systems show files of no size whose contents are made up as they are read.
    fn refuse_unreal(&self, relative: &[u8], dir: &OwnedFd) -> Result<(), PackError> {
        let kind = fs::fstatfs(dir)
            .map_err(|e| PackError::io(self.display(relative), "looking at its file system")(e.into()))?;
        match UNREAL.iter().find(|(magic, _)| *magic == kind.f_type as u64) {
            Some((_, name)) => Err(PackError::Unrepresentable {
                path: self.display(relative),
                reason: format!(
                    "is {name}, whose files have no contents to pack: use --one-file-system or --exclude"
                ),
            }),
            None => Ok(()),
        }
    }

    /// Something is not where it was listed.
    fn gone(&self, listing: &mut Listing, path: PathBuf) -> Result<(), PackError> {
        if !self.options.skip_changed {
            return Err(PackError::Changed(path));
        }
        listing.vanished.push(path);
        Ok(())
    }
}

/// What is to be known about one name.
struct Looked {
    stat: Stat,
    kind: Kind,
    xattrs: Vec<Xattr>,
}

/// Why it is not known.
enum Trouble {
    Gone,
    Io(&'static str, io::Error),
    Unrepresentable(String),
}

impl Trouble {
    fn io(action: &'static str) -> impl FnOnce(rustix::io::Errno) -> Trouble {
        move |e| if is_gone(e) { Trouble::Gone } else { Trouble::Io(action, e.into()) }
    }

    fn about(self, path: PathBuf) -> PackError {
        match self {
            Trouble::Gone => PackError::Changed(path),
            Trouble::Io(action, source) => PackError::Io { path, action, source },
            Trouble::Unrepresentable(reason) => PackError::Unrepresentable { path, reason },
        }
    }
}

/// Whether an errno says that a name, or a directory above it, is not what it was a moment ago.
fn is_gone(e: rustix::io::Errno) -> bool {
    use rustix::io::Errno;
    matches!(e, Errno::NOENT | Errno::NOTDIR | Errno::LOOP)
}

fn look(dir: &OwnedFd, name: &[u8]) -> Result<Looked, Trouble> {
    let stat =
        fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).map_err(Trouble::io("reading its attributes"))?;
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => Kind::Directory(Vec::new()),
        FileType::RegularFile => Kind::Regular,
        FileType::Symlink => match fs::readlinkat(dir, name, Vec::new()) {
            Ok(target) => Kind::Symlink(target.into_bytes()),
            // It is not a symlink any more.
            Err(rustix::io::Errno::INVAL) => return Err(Trouble::Gone),
            Err(e) => return Err(Trouble::io("reading the symlink")(e)),
        },
        FileType::CharacterDevice => Kind::CharDevice,
        FileType::BlockDevice => Kind::BlockDevice,
        FileType::Fifo => Kind::Fifo,
        FileType::Socket => Kind::Socket,
        FileType::Unknown => {
            return Err(Trouble::Unrepresentable(format!("is of an unknown kind (mode {:o})", stat.st_mode)));
        }
    };
    let xattrs = if has_xattrs(dir, name) {
        // Through /proc, since before Linux 6.13 no call reads the xattrs of a symlink or device by descriptor and name.
        let mut through = format!("/proc/self/fd/{}/", dir.as_raw_fd()).into_bytes();
        through.extend_from_slice(name);
        xattrs(Path::new(OsStr::from_bytes(&through)))?
    } else {
        Vec::new()
    };
    Ok(Looked { stat, kind, xattrs })
}

/// Whether a name may have xattrs: most have none, and listxattrat(2), of Linux 6.13, says so without the four components
/// of a path through /proc. Where it does not know, there may be some.
fn has_xattrs(dir: &OwnedFd, name: &[u8]) -> bool {
    /// The number is the same on every architecture (asm-generic/unistd.h).
    const LISTXATTRAT: libc::c_long = 465;
    let Ok(name) = CString::new(name) else { return true };
    // SAFETY: the name is NUL-terminated and lives over the call; with a size of 0 nothing is written.
    let bytes = unsafe {
        let no_list = std::ptr::null_mut::<u8>();
        libc::syscall(
            LISTXATTRAT,
            dir.as_raw_fd(),
            name.as_ptr(),
            libc::AT_SYMLINK_NOFOLLOW,
            no_list,
            0_usize,
        )
    };
    bytes != 0
}

fn xattrs(path: &Path) -> Result<Vec<Xattr>, Trouble> {
    let list = read_xattrs(path).map_err(Trouble::io("reading its extended attributes"))?;
    check_xattrs(&list).map_err(|e| Trouble::Unrepresentable(e.to_string()))?;
    Ok(list)
}

fn read_names(dir: &OwnedFd) -> io::Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for entry in fs::Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(name.to_vec());
        }
    }
    Ok(names)
}

/// All xattrs of `path` itself, sorted by name; none where the file system has none.
fn read_xattrs(path: &Path) -> rustix::io::Result<Vec<Xattr>> {
    let names = match sized(|buf| fs::llistxattr(path, buf)) {
        Err(rustix::io::Errno::OPNOTSUPP) => return Ok(Vec::new()),
        other => other?,
    };
    let mut list = Vec::new();
    for name in names.split_inclusive(|b| *b == 0) {
        let name = CStr::from_bytes_with_nul(name).map_err(|_| rustix::io::Errno::INVAL)?;
        match sized(|buf| fs::lgetxattr(path, name, buf)) {
            Ok(value) => list.push(Xattr { name: name.to_bytes().to_vec(), value }),
            // Removed since it was listed.
            Err(rustix::io::Errno::NODATA) => {}
            Err(e) => return Err(e),
        }
    }
    list.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(list)
}

/// Calls `read` with a buffer that is large enough, trying a small one first.
fn sized(mut read: impl FnMut(&mut [u8]) -> rustix::io::Result<usize>) -> rustix::io::Result<Vec<u8>> {
    let mut small = [0; 512];
    match read(&mut small) {
        Ok(len) => return Ok(small[..len].to_vec()),
        Err(rustix::io::Errno::RANGE) => {}
        Err(e) => return Err(e),
    }
    let mut large = vec![0; XATTR_MAX];
    let len = read(&mut large)?;
    large.truncate(len);
    Ok(large)
}

/// The time an entry gets in the image.
pub(super) fn mtime(stat: &Stat, clamp: Option<i64>) -> Mtime {
    match clamp {
        Some(latest) if stat.st_mtime >= latest => Mtime { secs: latest, nanos: 0 },
        _ => Mtime { secs: stat.st_mtime, nanos: stat.st_mtime_nsec as u32 },
    }
}
