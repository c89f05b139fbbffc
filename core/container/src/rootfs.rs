//! The root filesystem: the read-only image, a layer in memory over it, `/proc` and `/sys`, and the way into
//! it.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, Uid, chmodat, chownat, fstat, mkdir, openat};
use rustix::io::{Errno, Result};
use rustix::mount::{MountAttrFlags, UnmountFlags, unmount};
use rustix::process::{chdir, fchdir, pivot_root};

use super::mount::{self, DATA_ONLY, NO_DEVICES, READ_ONLY};
use super::plan::Plan;

/// What of the kernel the container may read and not change (docker's list).
const READ_ONLY_PATHS: [&CStr; 5] =
    [c"proc/bus", c"proc/fs", c"proc/irq", c"proc/sys", c"proc/sysrq-trigger"];

/// What of the kernel the container may not see (docker's list): memory, keys, hardware, and counters that
/// leak what others compute.
const MASKED_PATHS: [&CStr; 12] = [
    c"proc/acpi",
    c"proc/asound",
    c"proc/interrupts",
    c"proc/kcore",
    c"proc/keys",
    c"proc/latency_stats",
    c"proc/sched_debug",
    c"proc/scsi",
    c"proc/timer_list",
    c"proc/timer_stats",
    c"sys/devices/virtual/powercap",
    c"sys/firmware",
];

/// Mounts the tmpfs with all that the container writes, and the image in it, as `lower`.
///
/// It goes over the image's own place: that is a directory which exists and which nobody in this mount
/// namespace needs any more, so none has to be made on the host, and none can be left there. As the overlay's
/// layers lie side by side in it, their names are relative: no path with a `:` or a `,` is ever parsed.
pub(super) fn mount_scratch(plan: &Plan<'_>) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let place = openat(CWD, plan.lower.as_c_str(), flags, Mode::empty())?;
    let image = mount::copy(&place, c"", READ_ONLY)?;
    let options = [
        (c"size", plan.upper_size.as_c_str()),
        (c"nr_inodes", plan.upper_inodes.as_c_str()),
        (c"mode", c"0700"),
    ];
    // Setuid and devices are decided by the overlay's own flags: nothing is ever opened through this mount.
    let scratch = mount::create(c"tmpfs", &options, MountAttrFlags::empty())?;
    mount::attach(&scratch, &place)?;
    mount::attach(&image, mount::directory(&scratch, c"lower")?)?;
    mount::directory(&scratch, c"work")?;

    // The upper layer's root stands for the image's root.
    mount::directory(&scratch, c"upper")?;
    let root = fstat(&image)?;
    let owner = (Uid::from_raw(root.st_uid), Gid::from_raw(root.st_gid));
    chownat(&scratch, c"upper", Some(owner.0), Some(owner.1), AtFlags::empty())?;
    chmodat(&scratch, c"upper", Mode::from_raw_mode(root.st_mode), AtFlags::empty())?;
    Ok(scratch)
}

/// Mounts the overlay and returns its root.
pub(super) fn mount_overlay(scratch: &OwnedFd, privileged: bool) -> Result<OwnedFd> {
    fchdir(scratch)?;
    let options = [(c"lowerdir", c"lower"), (c"upperdir", c"upper"), (c"workdir", c"work")];
    // The container may make device nodes (CAP_MKNOD) and there is no device cgroup, so every mount that it
    // can make files on refuses to open them.
    let attributes = if privileged { MountAttrFlags::empty() } else { NO_DEVICES };
    let root = mount::create(c"overlay", &options, attributes)?;
    mount::attach(&root, mount::directory(scratch, c"root")?)?;
    Ok(root)
}

/// Mounts a fresh procfs, which shows the PID namespace of its mounter.
pub(super) fn mount_proc(root: &OwnedFd) -> Result<()> {
    mount::attach(mount::create(c"proc", &[], DATA_ONLY)?, mount::directory(root, c"proc")?)
}

/// Mounts sysfs, which shows the network namespace of its mounter; the rest of it is the host's.
pub(super) fn mount_sys(root: &OwnedFd, privileged: bool) -> Result<()> {
    // On the mount: sysfs itself may be shared with the host.
    let attributes = if privileged { DATA_ONLY } else { DATA_ONLY | READ_ONLY };
    mount::attach(mount::create(c"sysfs", &[], attributes)?, mount::directory(root, c"sys")?)
}

/// Mounts kernel paths over themselves, read-only.
pub(super) fn protect_paths(root: &OwnedFd) -> Result<()> {
    for path in READ_ONLY_PATHS {
        if let Some(place) = locate_existing(root, path)? {
            mount::attach(mount::copy(&place, c"", READ_ONLY)?, &place)?;
        }
    }
    Ok(())
}

/// Covers kernel paths: directories with an empty one, files with `/dev/null`.
pub(super) fn mask_paths(root: &OwnedFd, scratch: &OwnedFd) -> Result<()> {
    let empty = mount::directory(scratch, c"empty")?;
    for path in MASKED_PATHS {
        let Some(place) = locate_existing(root, path)? else { continue };
        let cover = match FileType::from_raw_mode(fstat(&place)?.st_mode) {
            FileType::Directory => mount::copy(&empty, c"", DATA_ONLY | READ_ONLY)?,
            _ => mount::copy_of_host(c"/dev/null", READ_ONLY)?,
        };
        mount::attach(cover, &place)?;
    }
    Ok(())
}

/// Which of them exist depends on the kernel.
fn locate_existing(root: impl AsFd, path: &CStr) -> Result<Option<OwnedFd>> {
    match mount::locate(root, path) {
        Ok(place) => Ok(Some(place)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Makes `root` the root of this mount namespace and lets go of the host's.
pub(super) fn enter(root: &OwnedFd) -> Result<()> {
    fchdir(root)?;
    // pivot_root(2), "pivot_root(".", ".")": the old root comes to lie on the new one, no directory is needed
    // for it.
    pivot_root(c".", c".")?;
    unmount(c".", UnmountFlags::DETACH)?;
    chdir(c"/")
}

/// Makes each directory that is missing. What exists and is no directory fails later, when it is entered.
pub(super) fn create_directories(paths: &[CString]) -> Result<()> {
    for path in paths {
        match mkdir(path.as_c_str(), Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}
