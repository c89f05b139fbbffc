//! The container's `/dev`: a small tmpfs with the devices that every program expects, and nothing of the
//! hardware.

use std::ffi::CStr;
use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags, openat, symlinkat};
use rustix::io::Result;
use rustix::mount::MountAttrFlags;

use super::mount::{self, DATA_ONLY, NO_SETUID, READ_ONLY};
use super::terminal::Terminal;

/// Each device with its path on the host.
const DEVICES: [(&CStr, &CStr); 6] = [
    (c"null", c"/dev/null"),
    (c"zero", c"/dev/zero"),
    (c"full", c"/dev/full"),
    (c"random", c"/dev/random"),
    (c"urandom", c"/dev/urandom"),
    (c"tty", c"/dev/tty"),
];

/// Links that programs expect, with their targets.
const LINKS: [(&CStr, &CStr); 5] = [
    (c"fd", c"/proc/self/fd"),
    (c"stdin", c"/proc/self/fd/0"),
    (c"stdout", c"/proc/self/fd/1"),
    (c"stderr", c"/proc/self/fd/2"),
    (c"ptmx", c"pts/ptmx"),
];

/// Mounts the tmpfs and returns its root.
pub(super) fn mount_dev(root: &OwnedFd) -> Result<OwnedFd> {
    let options = [(c"mode", c"0755"), (c"size", c"64k"), (c"nr_inodes", c"1k")];
    // It has no working device nodes of its own, and so takes none from the container either.
    let dev = mount::create(c"tmpfs", &options, &[], DATA_ONLY)?;
    mount::attach(&dev, mount::directory(root, c"dev")?)?;
    Ok(dev)
}

/// Binds the host's devices.
pub(super) fn bind_devices(dev: &OwnedFd) -> Result<()> {
    DEVICES.iter().try_for_each(|(name, path)| bind_device(dev, name, path))
}

/// Binds rather than makes a node, as the tmpfs refuses device nodes. Read-only still lets one write to the
/// device, but not change the mode or the owner of the host's node.
fn bind_device(dev: &OwnedFd, name: &CStr, path: &CStr) -> Result<()> {
    let device = mount::copy_of_host(path, DEVICE)?;
    openat(dev, name, OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC, Mode::from_raw_mode(0o644))?;
    mount::attach(device, mount::locate(dev, name)?)
}

const DEVICE: MountAttrFlags = READ_ONLY.union(NO_SETUID).union(MountAttrFlags::MOUNT_ATTR_NOEXEC);

/// Links the descriptors and the pty multiplexer.
pub(super) fn link_descriptors(dev: &OwnedFd) -> Result<()> {
    LINKS.iter().try_for_each(|(name, target)| symlinkat(*target, dev, *name))
}

/// Mounts devpts, of which every mount is a new instance: the host's terminals are not in it.
pub(super) fn mount_pts(dev: &OwnedFd) -> Result<()> {
    // Group 5 is `tty` by convention; the others are docker's.
    let options = [(c"mode", c"0620"), (c"ptmxmode", c"0666"), (c"gid", c"5")];
    let attributes = NO_SETUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    mount::attach(mount::create(c"devpts", &options, &[], attributes)?, mount::directory(dev, c"pts")?)
}

/// Mounts the place of POSIX shared memory, as large as docker's.
pub(super) fn mount_shm(dev: &OwnedFd) -> Result<()> {
    let options = [(c"mode", c"1777"), (c"size", c"64m"), (c"nr_inodes", c"16k")];
    mount::attach(mount::create(c"tmpfs", &options, &[], DATA_ONLY)?, mount::directory(dev, c"shm")?)
}

/// Mounts the POSIX message queues of this IPC namespace.
pub(super) fn mount_mqueue(dev: &OwnedFd) -> Result<()> {
    mount::attach(mount::create(c"mqueue", &[], &[], DATA_ONLY)?, mount::directory(dev, c"mqueue")?)
}

/// Shows the caller's terminal as the console, so that `ttyname` finds it. One that has no path on the host,
/// as when it comes from another container, has none here either.
pub(super) fn bind_console(dev: &OwnedFd, terminal: &Terminal) -> Result<()> {
    match &terminal.path {
        Some(path) => bind_device(dev, c"console", path),
        None => Ok(()),
    }
}
