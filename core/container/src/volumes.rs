//! What of the host is shown inside, and files that are put there before anything runs.
//!
//! The image decides where its symlinks lead, so every path is looked up with the container's root as the root of all
//! (openat2 with RESOLVE_IN_ROOT): no link and no `..` leads out, however the names change meanwhile. Nothing of the
//! image runs yet, and a mount goes to the place that was opened, not to its name.
//!
//! Volumes come one into another: outer ones first, whatever the order in which they are asked for. What would be covered by
//! another volume or by the kernel's own mounts is refused ([`check_places`]), and so is a second volume at one place. Only the
//! image knows where its links lead: once all are there, each volume and file is looked for again, and one that another covers
//! is an error.
//!
//! Limits: only regular files and directories. A link of the image may lead a volume below `/proc`, `/sys` or `/dev`, where it
//! is covered.

use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, StatxAttributes, StatxFlags, fstat, ftruncate,
    mkdirat, openat, openat2, statx, unlinkat,
};
use rustix::io::{Errno, Result};
use rustix::mount::{MountAttrFlags, OpenTreeFlags, open_tree};

use crate::mount::{self, NO_DEVICES, NO_SETUID, READ_ONLY};
use crate::{ContainerError, Volume, syscall};

/// Most volumes of a container.
pub(crate) const VOLUMES_MAX: usize = 64;
/// Most files of one: the caller has some of its own, beside those that somebody asks it for.
pub(crate) const FILES_MAX: usize = 72;
/// Longest path that the kernel takes, without the NUL at its end (PATH_MAX).
pub(crate) const PATH_BYTES_MAX: usize = 4095;
/// What the kernel mounts in every container, after all others.
const KERNELS: [&str; 3] = ["proc", "sys", "dev"];

/// Why nothing can be shown or written at a path inside.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlaceError {
    /// It is none.
    #[error(
        "{0:?} is no place in a container: it must be absolute, without '..', not / and not longer than {PATH_BYTES_MAX} bytes"
    )]
    NoPlace(PathBuf),
    /// The kernel's own mounts come there.
    #[error(
        "{0:?} cannot be used: /proc, /sys and /dev are the kernel's in every container; choose another place"
    )]
    Kernels(PathBuf),
    /// Two are to be there.
    #[error("two mounts have the same place, {0:?}: leave one out, or give it another place")]
    Twice(PathBuf),
    /// Nobody would see it.
    #[error(
        "the file {file:?} would be covered by what is mounted on {volume:?}: put it into that, or elsewhere"
    )]
    Covered {
        /// The file.
        file: PathBuf,
        /// Where the volume comes to lie.
        volume: PathBuf,
    },
}

/// Refuses places inside at which volumes or files could not be seen.
pub fn check_places<'a>(
    volumes: impl IntoIterator<Item = &'a Path>,
    files: impl IntoIterator<Item = &'a Path>,
) -> std::result::Result<(), PlaceError> {
    let mut seen = std::collections::BTreeSet::new();
    for target in volumes {
        if !seen.insert(names(target)?) {
            return Err(PlaceError::Twice(target.to_owned()));
        }
    }
    for file in files {
        let path = names(file)?;
        if let Some(upto) = (1..=path.len()).find(|upto| seen.contains(&path[..*upto])) {
            let volume = Path::new("/").join(path[..upto].iter().collect::<PathBuf>());
            return Err(PlaceError::Covered { file: file.to_owned(), volume });
        }
    }
    Ok(())
}

/// The names on the way to an absolute path without `..` that is neither the root itself nor the kernel's.
fn names(path: &Path) -> std::result::Result<Vec<&OsStr>, PlaceError> {
    if path.as_os_str().len() > PATH_BYTES_MAX {
        return Err(PlaceError::NoPlace(path.to_owned()));
    }
    let mut names = Vec::new();
    for part in path.components() {
        match part {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(name) => names.push(name),
            Component::ParentDir | Component::Prefix(_) => return Err(PlaceError::NoPlace(path.to_owned())),
        }
    }
    match names.first() {
        Some(first) if KERNELS.iter().any(|kernels| first == kernels) && path.is_absolute() => {
            Err(PlaceError::Kernels(path.to_owned()))
        }
        Some(_) if path.is_absolute() && !path.as_os_str().as_bytes().contains(&0) => Ok(names),
        Some(_) | None => Err(PlaceError::NoPlace(path.to_owned())),
    }
}

/// A path inside, with the names of the directories that lead to it.
pub(crate) struct Place {
    /// `a`, `a/b` for `/a/b/c`: each with its last name.
    parents: Vec<(CString, CString)>,
    /// `a/b/c`
    path: CString,
    /// `c`
    name: CString,
}

impl Place {
    pub(crate) fn new(path: &Path) -> std::result::Result<Self, ContainerError> {
        let names = names(path)?;
        let c = |bytes: &[u8]| {
            CString::new(bytes).map_err(|_| ContainerError::Invalid("a path contains a NUL byte"))
        };
        let upto = |count: usize| c(names[..count].iter().collect::<PathBuf>().as_os_str().as_bytes());
        let parents = (1..names.len())
            .map(|count| Ok((upto(count)?, c(names[count - 1].as_bytes())?)))
            .collect::<std::result::Result<_, ContainerError>>()?;
        let name = names.last().map_or(&b""[..], |name| name.as_bytes());
        Ok(Place { parents, path: upto(names.len())?, name: c(name)? })
    }

    /// How many directories lead to it.
    pub(crate) fn depth(&self) -> usize {
        self.parents.len()
    }

    /// The directory that the last name lies in, made when missing.
    fn parent(&self, root: &OwnedFd) -> Result<OwnedFd> {
        let mut parent = open_in(root, c".", OFlags::PATH | OFlags::DIRECTORY)?;
        for (path, name) in &self.parents {
            make_directory(&parent, name)?;
            parent = open_in(root, path, OFlags::PATH | OFlags::DIRECTORY)?;
        }
        Ok(parent)
    }

    /// Opens it as a place to mount on: a directory or a file, made when missing.
    fn locate(&self, root: &OwnedFd, directory: bool) -> Result<OwnedFd> {
        let parent = self.parent(root)?;
        if directory {
            make_directory(&parent, &self.name)?;
            return open_in(root, &self.path, OFlags::PATH | OFlags::DIRECTORY);
        }
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match openat(&parent, self.name.as_c_str(), flags, Mode::from_raw_mode(0o644)) {
            Ok(_) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
        open_in(root, &self.path, OFlags::PATH)
    }
}

fn make_directory(parent: &OwnedFd, name: &CStr) -> Result<()> {
    match mkdirat(parent, name, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// Opens a path with `root` as the root of all links and `..` in it.
fn open_in(root: &OwnedFd, path: &CStr, flags: OFlags) -> Result<OwnedFd> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve)
}

/// In the caller: a copy of the mounts at a volume's source.
pub(crate) fn open(volume: &Volume, privileged: bool) -> std::result::Result<OwnedFd, ContainerError> {
    let flags =
        OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::AT_RECURSIVE;
    let mount = open_tree(CWD, volume.source.as_path(), flags).and_then(|mount| {
        let mut attributes = if privileged { MountAttrFlags::empty() } else { NO_SETUID | NO_DEVICES };
        if volume.read_only {
            attributes |= READ_ONLY;
        }
        syscall::set_copy_apart(&mount, attributes.bits().into())?;
        match FileType::from_raw_mode(fstat(&mount)?.st_mode) {
            FileType::Directory | FileType::RegularFile => Ok(mount),
            // A socket or a device is somebody's on the host.
            _ => Err(Errno::NOTSUP),
        }
    });
    mount.map_err(|errno| ContainerError::Volume { path: volume.source.clone(), source: errno.into() })
}

/// In init: the number of a mount.
pub(crate) fn number(mount: impl AsFd) -> Result<u64> {
    Ok(statx(mount, c"", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)?.stx_mnt_id)
}

/// In init: puts the mount of a volume where it belongs, unless links of the image lead there to one of `covered`.
pub(crate) fn attach(root: &OwnedFd, place: &Place, volume: impl AsFd, covered: &[u64]) -> Result<()> {
    let directory = FileType::from_raw_mode(fstat(&volume)?.st_mode) == FileType::Directory;
    let place = place.locate(root, directory)?;
    let found = statx(&place, c"", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)?;
    if found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) && covered.contains(&found.stx_mnt_id) {
        return Err(Errno::BUSY);
    }
    mount::attach(volume, place)
}

/// In init: an error unless what lies at a place is the mount with this number.
pub(crate) fn check_seen(root: &OwnedFd, place: &Place, expected: u64) -> Result<()> {
    match open_in(root, &place.path, OFlags::PATH).and_then(number) {
        Ok(found) if found == expected => Ok(()),
        // Another one covers the way there, and has nothing like it.
        Ok(_) | Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Err(Errno::BUSY),
        Err(errno) => Err(errno),
    }
}

/// In init: writes a file, in place of what it held.
pub(crate) fn write(root: &OwnedFd, place: &Place, content: &[u8]) -> Result<()> {
    let parent = place.parent(root)?;
    // Nonblocking, as a FIFO of the image would keep us waiting for ever; truncated only when it is a file.
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let open = || openat2(root, place.path.as_c_str(), flags, Mode::from_raw_mode(0o644), resolve);
    let file = match open() {
        // A link that leads nowhere, as /etc/resolv.conf does in images of a running system: the file comes in its place.
        Err(Errno::NOENT | Errno::LOOP) => {
            unlinkat(&parent, place.name.as_c_str(), AtFlags::empty())?;
            open()?
        }
        opened => opened?,
    };
    if FileType::from_raw_mode(fstat(&file)?.st_mode) != FileType::RegularFile {
        return Err(Errno::INVAL);
    }
    ftruncate(&file, 0)?;
    let mut left = content;
    while !left.is_empty() {
        match rustix::io::write(&file, left) {
            Ok(0) => return Err(Errno::IO),
            Ok(count) => left = &left[count..],
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_absolute_below_the_root_and_never_climbs() {
        for path in ["", "/", "/.", "a", "a/b", "proc", "/a/../b", "/..", "/a\0b"] {
            assert_eq!(names(Path::new(path)), Err(PlaceError::NoPlace(path.into())), "{path:?}");
        }
        let long = |bytes: usize| PathBuf::from("/a".repeat(bytes / 2));
        assert!(names(&long(4094)).is_ok() && names(&long(4096)).is_err());
        let place = Place::new(Path::new("//a/./b//c/")).unwrap_or_else(|error| panic!("{error}"));
        let parents: Vec<_> = place
            .parents
            .iter()
            .map(|(path, name)| (path.to_str().unwrap(), name.to_str().unwrap()))
            .collect();
        assert_eq!(parents, [("a", "a"), ("a/b", "b")]);
        assert_eq!((place.path.to_str().unwrap(), place.name.to_str().unwrap()), ("a/b/c", "c"));
    }

    #[test]
    fn what_the_kernel_mounts_or_another_volume_covers_is_no_place() {
        let check = |volumes: &[&str], files: &[&str]| {
            let paths = |texts: &[&str]| texts.iter().map(PathBuf::from).collect::<Vec<_>>();
            let (volumes, files) = (paths(volumes), paths(files));
            check_places(volumes.iter().map(PathBuf::as_path), files.iter().map(PathBuf::as_path))
        };
        for path in ["/proc", "/proc/", "//proc/sys/x", "/./sys", "/sys/a", "/dev/shm"] {
            assert_eq!(check(&[path], &[]), Err(PlaceError::Kernels(path.into())));
            assert_eq!(check(&[], &[path]), Err(PlaceError::Kernels(path.into())));
        }
        for again in ["/data", "/data/", "//data/."] {
            assert_eq!(check(&["/data", again], &[]), Err(PlaceError::Twice(again.into())));
        }
        for file in ["/data/x", "/data/a/b", "/data"] {
            let covered = PlaceError::Covered { file: file.into(), volume: "/data".into() };
            assert_eq!(check(&["/other", "/data/", "/data/a/b/c"], &[file]), Err(covered));
        }
        // Names that only begin alike, and what lies around a volume.
        check(&["/data", "/data/x", "/database", "/process", "/a/proc"], &["/data.conf", "/etc/dev"])
            .unwrap();
    }
}
