//! What PID 1 does before it becomes small: the file systems of the kernel, and a root that is no initramfs.
//!
//! Whatever fails, it goes on: the manager can tell more than a kernel that panics.

// `core0-init` takes this file in by its path: it needs nothing of the boot but `line`.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

use rustix::fs::FsWord;
use rustix::mount::{MountFlags, mount, mount_bind, mount_move, mount_remount};

use super::line::{State, line};
use crate::say::say;

/// A stage: its name, and what it does and says.
pub type Early = (&'static str, fn() -> Result<String, EarlyError>);

/// Those that PID 1 runs, in order.
pub const STAGES: [Early; 2] = [("pseudo_fs", pseudo_fs), ("root", root)];

/// A step that the kernel refuses.
#[derive(Debug, thiserror::Error)]
#[error("cannot {0}: {1}")]
pub struct EarlyError(String, #[source] io::Error);

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
    for (name, run) in STAGES {
        // PID 1 has no time to try again: what it cannot have now, it never gets.
        let state = run().map_or_else(|e| State::Failed(e.to_string()), State::Done);
        say(format_args!("{}", line(name, &state)));
    }
    for (name, value) in ENVIRONMENT {
        // SAFETY: PID 1 has one thread.
        unsafe { std::env::set_var(name, value) };
    }
}

/// Mounts the file systems of the kernel. One that cannot be keeps no other from it.
fn pseudo_fs() -> Result<String, EarlyError> {
    let mounted = PSEUDO.map(|(kind, place, flags, data)| {
        step(&format!("make {place}"), || make_folder(Path::new(place), 0o755))?;
        step(&format!("mount {place}"), || Ok(mount(kind, place, kind, flags, data)?))
    });
    let named = step("set the name of the node", || Ok(rustix::system::sethostname(HOSTNAME)?));
    mounted.into_iter().chain([named]).collect::<Result<(), _>>()?;
    Ok(format!("{} mounted", PSEUDO.len()))
}

/// Leaves the initramfs for another mount of the same files, which can be read only, and which containers can leave in turn:
/// pivot_root(2) refuses to leave the first mount of a kernel. Nothing is copied, so nothing is freed either.
fn root() -> Result<String, EarlyError> {
    let kind = step("look at the root", || Ok(rustix::fs::statfs("/")?))?.f_type;
    if kind != RAMFS && kind != TMPFS {
        return Ok("it is no initramfs, and stays".into());
    }
    step("make the new root", || make_folder(Path::new(NEW), 0o755))?;
    // Without the file systems on it.
    step("mount the new root", || Ok(mount_bind("/", NEW)?))?;
    for name in MOVED {
        step(&format!("move the mount of /{name}"), || {
            match mount_move(format!("/{name}"), format!("{NEW}/{name}")) {
                // It is no mount, since it could not be made. The others do not stay behind for that.
                Err(rustix::io::Errno::INVAL) => Ok(()),
                moved => Ok(moved?),
            }
        })?;
    }
    step("enter the new root", || {
        rustix::process::chdir(NEW)?;
        mount_move(".", "/")?;
        rustix::process::chroot(".")?;
        rustix::process::chdir("/")?;
        fs::remove_dir(NEW)?;
        // The kernel makes its first root as it makes /tmp.
        fs::set_permissions("/", PermissionsExt::from_mode(0o755))
    })?;
    for place in WRITABLE {
        step(&format!("keep {place} writable"), || {
            mount_bind(place, place)?;
            Ok(mount_remount(place, MountFlags::BIND | MountFlags::NOSUID | MountFlags::NODEV, c"")?)
        })?;
    }
    step("make the root read-only", || Ok(mount_remount("/", MountFlags::BIND | MountFlags::RDONLY, c"")?))?;
    Ok(match kind {
        TMPFS => "a tmpfs, read-only".into(),
        // The kernel makes it one where it is told of a root.
        _ => "a ramfs, read-only: what is written can fill the memory; boot without root=".into(),
    })
}

/// Makes a folder, or leaves the one that is there.
fn make_folder(path: &Path, mode: u32) -> io::Result<()> {
    match DirBuilder::new().mode(mode).create(path) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(e),
        // PID 1 begins with a umask of the kernel's, which is 022.
        Ok(()) => fs::set_permissions(path, PermissionsExt::from_mode(mode)),
        Err(_) => Ok(()),
    }
}

fn step<T>(what: &str, run: impl FnOnce() -> io::Result<T>) -> Result<T, EarlyError> {
    run().map_err(|e| EarlyError(what.into(), e))
}
