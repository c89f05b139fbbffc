//! What PID 1 does before it becomes small: the file systems of the kernel, and a root that is no initramfs.
//!
//! It is `/init` of the initramfs. Whatever fails, it goes on: the manager can tell more than a kernel that panics.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, symlink};
use std::path::Path;

use rustix::fs::FsWord;
use rustix::mount::{MountFlags, mount, mount_bind, mount_move, mount_remount};

use super::console::{State, line};
use super::{OnFailure, Run, STAGES, StageError};
use crate::say::say;

/// What is mounted: kind, place, flags and data.
const PSEUDO: [(&str, &str, MountFlags, &std::ffi::CStr); 7] = [
    ("proc", "/proc", PLAIN, c""),
    ("sysfs", "/sys", PLAIN, c""),
    ("devtmpfs", "/dev", MountFlags::NOSUID, c"mode=755"),
    ("devpts", "/dev/pts", MountFlags::NOSUID.union(MountFlags::NOEXEC), c"gid=5,mode=620,ptmxmode=666"),
    ("tmpfs", "/dev/shm", MountFlags::NOSUID.union(MountFlags::NODEV), c"mode=1777"),
    ("tmpfs", "/run", MountFlags::NOSUID.union(MountFlags::NODEV), c"mode=755"),
    ("cgroup2", "/sys/fs/cgroup", PLAIN, c""),
];
const PLAIN: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV).union(MountFlags::NOEXEC);
/// Those of them that go along to another root.
const MOVED: [&str; 4] = ["proc", "sys", "dev", "run"];
/// What stays writable when the root is not.
const WRITABLE: [&str; 2] = ["/var", "/tmp"];
/// Where our programs are in the image.
pub const PROGRAMS: &str = "/usr/bin";
/// Where the new root is made.
const NEW: &str = "/new-root";
/// What a manager and its jobs start with; the kernel gives PID 1 nearly nothing.
const ENVIRONMENT: [(&str, &str); 4] = [
    ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
    ("HOME", "/root"),
    ("G8_CACHE", "/var/cache/g8os"),
    ("XDG_DATA_HOME", "/var/lib"),
];
/// The name of a node until it gets one.
const HOSTNAME: &[u8] = b"g8os";

const RAMFS: FsWord = 0x8584_58F6;
const TMPFS: FsWord = 0x0102_1994;

/// Whether this process is `/init` of an initramfs.
pub fn is_init_of_initramfs() -> bool {
    let own = std::env::args_os().next();
    std::process::id() == 1 && own.is_some_and(|own| Path::new(&own).file_name() == Some("init".as_ref()))
}

/// Runs PID 1's stages.
pub fn run() {
    for stage in &STAGES {
        let Run::Pid1(run) = stage.run else { continue };
        let state = match (run(), stage.on_failure) {
            (Ok(result), _) => State::Done(result),
            // PID 1 has no time to try again: what it cannot have now, it never gets.
            (Err(e), OnFailure::GoOn | OnFailure::Again) => State::Failed(e.to_string()),
        };
        say(format_args!("{}", line(stage.name, &state)));
    }
    for (name, value) in ENVIRONMENT {
        // SAFETY: PID 1 has one thread.
        unsafe { std::env::set_var(name, value) };
    }
}

/// Mounts the file systems of the kernel.
pub fn pseudo_fs() -> Result<String, StageError> {
    for (kind, place, flags, data) in PSEUDO {
        step(&format!("make {place}"), || make_folder(Path::new(place), 0o755))?;
        step(&format!("mount {place}"), || Ok(mount(kind, place, kind, flags, data)?))?;
    }
    step("set the name of the node", || Ok(rustix::system::sethostname(HOSTNAME)?))?;
    Ok(format!("{} mounted", PSEUDO.len()))
}

/// Leaves the initramfs for a tmpfs, which can be read only, and which containers can leave in turn: pivot_root(2) refuses to
/// leave the first root of a kernel.
pub fn root() -> Result<String, StageError> {
    let old = step("look at the root", || fs::metadata("/"))?;
    // Everything in it is going to be moved away.
    let kind = step("look at the root", || Ok(rustix::fs::statfs("/")?))?.f_type;
    if kind != RAMFS && kind != TMPFS {
        return Ok("it is no initramfs, and stays".into());
    }
    step("make the new root", || make_folder(Path::new(NEW), 0o755))?;
    step("mount the new root", || Ok(mount("tmpfs", NEW, "tmpfs", MountFlags::empty(), c"mode=755")?))?;
    let mut bytes = 0;
    step("move the files of the initramfs", || {
        move_folder(Path::new("/"), Path::new(NEW), old.dev(), &mut bytes)
    })?;
    for name in MOVED {
        step(&format!("move the mount of /{name}"), || {
            Ok(mount_move(format!("/{name}"), format!("{NEW}/{name}"))?)
        })?;
    }
    step("enter the new root", || {
        rustix::process::chdir(NEW)?;
        mount_move(".", "/")?;
        rustix::process::chroot(".")?;
        Ok(rustix::process::chdir("/")?)
    })?;
    for place in WRITABLE {
        step(&format!("keep {place} writable"), || {
            mount_bind(place, place)?;
            Ok(mount_remount(place, MountFlags::BIND | MountFlags::NOSUID | MountFlags::NODEV, c"")?)
        })?;
    }
    step("make the root read-only", || Ok(mount_remount("/", MountFlags::BIND | MountFlags::RDONLY, c"")?))?;
    Ok(format!("{} MiB in a tmpfs, read-only", bytes >> 20))
}

/// Moves what lies in a folder, file by file, so that nothing is held in memory twice. Other file systems stay: there, an
/// empty folder is made for them.
fn move_folder(from: &Path, to: &Path, device: u64, bytes: &mut u64) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let metadata = fs::symlink_metadata(&source)?;
        let kind = metadata.file_type();
        if source == Path::new(NEW) {
        } else if kind.is_dir() {
            make_folder(&target, metadata.mode() & 0o7777)?;
            if metadata.dev() == device {
                move_folder(&source, &target, device, bytes)?;
                fs::remove_dir(&source)?;
            }
        } else if kind.is_symlink() {
            symlink(fs::read_link(&source)?, &target)?;
            fs::remove_file(&source)?;
        } else if kind.is_file() {
            *bytes += fs::copy(&source, &target)?;
            fs::remove_file(&source)?;
        }
    }
    Ok(())
}

/// Makes a folder, or leaves the one that is there.
fn make_folder(path: &Path, mode: u32) -> io::Result<()> {
    match DirBuilder::new().mode(mode).create(path) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(e),
        // PID 1 begins with a umask of the kernel's, which is 022.
        Ok(()) => fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)),
        Err(_) => Ok(()),
    }
}

fn step<T>(what: &str, run: impl FnOnce() -> io::Result<T>) -> Result<T, StageError> {
    run().map_err(|e| StageError::Step(what.into(), e))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn files_links_and_modes_are_moved_and_nothing_stays() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let old = from.path().join("a");
        fs::create_dir_all(old.join("b")).unwrap();
        fs::write(old.join("b/file"), "text").unwrap();
        fs::set_permissions(old.join("b/file"), PermissionsExt::from_mode(0o640)).unwrap();
        fs::set_permissions(old.join("b"), PermissionsExt::from_mode(0o1777)).unwrap();
        symlink("b/file", old.join("link")).unwrap();
        let mut bytes = 0;
        let device = fs::metadata(from.path()).unwrap().dev();
        move_folder(from.path(), to.path(), device, &mut bytes).unwrap();
        let new = to.path().join("a");
        assert_eq!((fs::read_to_string(new.join("link")).unwrap().as_str(), bytes), ("text", 4));
        assert_eq!(fs::metadata(new.join("b/file")).unwrap().mode() & 0o7777, 0o640);
        assert_eq!(fs::metadata(new.join("b")).unwrap().mode() & 0o7777, 0o1777);
        assert_eq!(fs::read_dir(from.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_lies_on_another_file_system_stays_there() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::create_dir(from.path().join("mounted")).unwrap();
        fs::write(from.path().join("mounted/file"), "text").unwrap();
        let device = fs::metadata(from.path()).unwrap().dev() + 1;
        move_folder(from.path(), to.path(), device, &mut 0).unwrap();
        assert!(from.path().join("mounted/file").exists());
        assert_eq!(fs::read_dir(to.path().join("mounted")).unwrap().count(), 0);
    }
}
