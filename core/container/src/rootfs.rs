//! The root filesystem: the read-only image, a layer in memory over it, `/proc` and `/sys`, and the way into
//! it.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, StatxFlags, Uid, fchmod, fchown, fstat, mkdir, openat, statx,
};
use rustix::io::{Errno, Result};
use rustix::mount::{MountAttrFlags, UnmountFlags, unmount};
use rustix::process::{chdir, fchdir, pivot_root};

use super::mount::{self, DATA_ONLY, NO_DEVICES, READ_ONLY};
use super::plan::Plan;
use super::{Upper, link};

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

/// Mounts the tmpfs with all that the container writes, and in it the image, as `lower`, and the layers on disk, if they
/// are there, as `disk`.
///
/// It goes over the root: that is a directory which exists and which everybody may search, and nobody in this mount
/// namespace looks up what it covers. So none has to be made on the host, and none can be left there. As the overlay's
/// layers lie in it, their names are relative: no path with a `:` or a `,` is ever parsed.
pub(super) fn mount_scratch(plan: &Plan<'_>, image: &OwnedFd, link: &OwnedFd) -> Result<OwnedFd> {
    let options = [
        (c"size", plan.scratch_size.as_c_str()),
        (c"nr_inodes", plan.scratch_inodes.as_c_str()),
        (c"mode", c"0700"),
    ];
    // Setuid and devices are decided by the overlay's own flags: nothing is ever opened through this mount.
    let scratch = mount::create(c"tmpfs", &options, &[], MountAttrFlags::empty())?;
    let root = openat(CWD, c"/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    mount::attach(&scratch, root)?;
    mount::attach(image, mount::directory(&scratch, c"lower")?)?;
    let upper = match plan.spec.upper {
        Upper::Memory { .. } => {
            mount::directory(&scratch, c"work")?;
            mount::directory(&scratch, c"upper")?;
            openat(&scratch, c"upper", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?
        }
        Upper::Disk { .. } => {
            mount::attach(link::receive_mount(link)?, mount::directory(&scratch, c"disk")?)?;
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            openat(mount::locate(&scratch, c"disk")?, c"upper", flags, Mode::empty())?
        }
    };
    // The upper layer's root stands for the image's root.
    let root = fstat(image)?;
    fchown(&upper, Some(Uid::from_raw(root.st_uid)), Some(Gid::from_raw(root.st_gid)))?;
    fchmod(&upper, Mode::from_raw_mode(root.st_mode))?;
    Ok(scratch)
}

/// Mounts the overlay and returns its root.
pub(super) fn mount_overlay(plan: &Plan<'_>, scratch: &OwnedFd) -> Result<OwnedFd> {
    fchdir(scratch)?;
    let (upper, work, lasting) = match plan.spec.upper {
        Upper::Memory { .. } => (c"upper", c"work", true),
        // What is written lives as long as the container, so nobody waits for the disk.
        Upper::Disk { .. } => (c"disk/upper", c"disk/work", false),
    };
    let options = [(c"lowerdir", c"lower"), (c"upperdir", upper), (c"workdir", work)];
    // In a user namespace the overlay may keep its marks in attributes of users only.
    let switches: &[&CStr] = match (plan.spec.privileged, lasting) {
        (true, true) => &[],
        (true, false) => &[c"volatile"],
        (false, true) => &[c"userxattr"],
        (false, false) => &[c"userxattr", c"volatile"],
    };
    // The container may make device nodes (CAP_MKNOD) where it is the host's root, and there is no device cgroup, so every
    // mount that it can make files on refuses to open them.
    let attributes = if plan.spec.privileged { MountAttrFlags::empty() } else { NO_DEVICES };
    let root = mount::create(c"overlay", &options, switches, attributes)?;
    mount::attach(&root, mount::directory(scratch, c"root")?)?;
    Ok(root)
}

/// Mounts a fresh procfs, which shows the PID namespace of its mounter.
pub(super) fn mount_proc(root: &OwnedFd) -> Result<()> {
    mount::attach(mount::create(c"proc", &[], &[], DATA_ONLY)?, mount::directory(root, c"proc")?)
}

/// Mounts sysfs, which shows the network namespace of its mounter; the rest of it is the host's. That of the host's
/// network comes from the caller.
pub(super) fn mount_sys(plan: &Plan<'_>, root: &OwnedFd, link: &OwnedFd) -> Result<()> {
    // On the mount: sysfs itself may be shared with the host.
    let attributes = if plan.spec.privileged { DATA_ONLY } else { DATA_ONLY | READ_ONLY };
    let sys = match plan.takes_sys() {
        true => link::receive_mount(link)?,
        false => mount::create(c"sysfs", &[], &[], attributes)?,
    };
    mount::attach(sys, mount::directory(root, c"sys")?)
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
    // On it lies the scratch, which was put over the host's root.
    unmount(c".", UnmountFlags::DETACH)?;
    unmount(c".", UnmountFlags::DETACH)?;
    chdir(c"/")?;
    // What is left on the root is not seen by `/`, and is by `/..`.
    let mount_of =
        |path: &CStr| statx(CWD, path, AtFlags::empty(), StatxFlags::MNT_ID).map(|stat| stat.stx_mnt_id);
    if mount_of(c"/")? == mount_of(c"/..")? { Ok(()) } else { Err(Errno::XDEV) }
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
