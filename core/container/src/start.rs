//! The caller's side of a container: what only the caller can do, and the clone.
//!
//! The kernel maps ids and changes the ids of mounts only for who has rights over the host, which init gives up by being
//! born in a user namespace. So the caller opens the image and the volumes, clones, gives the new namespace its range of
//! ids, maps the ids of the mounts by it, and hands them over.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, mkdirat};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;
use rustix::net::RecvFlags;
use rustix::process::{Signal, WaitId, WaitIdOptions, WaitIdStatus, pidfd_send_signal, waitid};

use crate::cgroup::Cgroup;
use crate::ids::{self, Range};
use crate::mount::{self, DATA_ONLY, READ_ONLY};
use crate::plan::{Plan, c_string};
use crate::report::Report;
use crate::signals::Blocked;
use crate::syscall::{self, Child};
use crate::{ContainerError, Upper, at, init, link, volumes};

/// A mount for init, and what is said when its ids cannot be mapped.
struct Handed {
    mount: OwnedFd,
    /// None for what has no owner, like sysfs.
    mapping: Option<&'static str>,
}

/// A container whose init runs. Dropping it ends the container.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) init: Child,
    /// The caller's end.
    pub(crate) link: OwnedFd,
    /// Ended before the fields below: nobody may have the ids again while a process has them.
    reaped: bool,
    _cgroup: Option<Cgroup>,
    range: Option<Range>,
}

/// Clones init, which builds the container, reports, waits for go, and then is `inside`.
pub(crate) fn start(
    plan: &Plan<'_>,
    exit_signal: i32,
    kept: Option<BorrowedFd<'_>>,
    inside: impl FnOnce(&OwnedFd) -> i32,
) -> Result<Started, ContainerError> {
    let range = if plan.spec.privileged { None } else { Some(Range::take()?) };
    let handed = open_mounts(plan)?;
    let cgroup = match &plan.spec.limits {
        Some((name, limits)) => Cgroup::create(name, limits)?,
        None => None,
    };
    let (ours, theirs) = link::pair().map_err(at("create the link to init"))?;

    // Init starts with every signal blocked, so none is lost or runs a handler of the caller in there.
    let blocked = Blocked::all();
    let into = cgroup.as_ref().map(|cgroup| cgroup.directory.as_fd());
    let init = syscall::spawn(plan.namespaces, exit_signal, into, || init::run(plan, &theirs, kept, inside));
    drop(blocked);
    drop(theirs);
    let init = init.map_err(at("create the namespaces"))?;
    let started = Started { init, link: ours, reaped: false, _cgroup: cgroup, range };
    started.hand_over(handed).map_err(|error| started.cause(error))?;
    Ok(started)
}

/// In the order in which init takes them.
fn open_mounts(plan: &Plan<'_>) -> Result<Vec<Handed>, ContainerError> {
    let spec = plan.spec;
    let image = mount::copy_of_host(&plan.lower, READ_ONLY).map_err(at("open the image"))?;
    let mapping = "map the ids of the image (mounted by FUSE it needs Linux 6.12 and to be open to others)";
    let mut handed = vec![Handed { mount: image, mapping: Some(mapping) }];
    if let Upper::Disk { folder } = &spec.upper {
        let mount = open_layers(folder).map_err(at("open the upper layer"))?;
        handed.push(Handed { mount, mapping: Some("map the ids of the upper layer") });
    }
    for (_, volume) in &plan.volumes {
        let mount = volumes::open(volume, spec.privileged)?;
        handed.push(Handed { mount, mapping: Some("map the ids of a volume: its file system cannot do so") });
    }
    if plan.takes_sys() {
        let mount = mount::create(c"sysfs", &[], &[], DATA_ONLY | READ_ONLY).map_err(at("make a sysfs"))?;
        handed.push(Handed { mount, mapping: None });
    }
    Ok(handed)
}

/// The folder with the overlay's layers on disk; both are made here, as root's: so they are the container's root's.
fn open_layers(folder: &Path) -> Result<OwnedFd, Errno> {
    let path = c_string(folder).map_err(|_| Errno::INVAL)?;
    let mount = mount::copy_of_host(&path, MountAttrFlags::empty())?;
    for (name, mode) in [(c"upper", 0o755), (c"work", 0o700)] {
        mkdirat(&mount, name, Mode::from_raw_mode(mode))?;
    }
    Ok(mount)
}

impl Started {
    fn hand_over(&self, handed: Vec<Handed>) -> Result<(), ContainerError> {
        let users = self.range.as_ref().map(|range| range.give_to(self.init.pid)).transpose()?;
        for Handed { mount, mapping } in handed {
            if let (Some(users), Some(step)) = (&users, mapping) {
                ids::map_mount(&mount, users, step)?;
            }
            link::send_mount(&self.link, &mount).map_err(at("hand over a mount"))?;
        }
        Ok(())
    }

    /// What the container's root is out here; 0 for a privileged one.
    pub(crate) fn root(&self) -> u32 {
        self.range.as_ref().map_or(0, |range| range.first)
    }

    /// Lets the container's programs start.
    pub(crate) fn go(&self) -> Result<(), ContainerError> {
        link::send_go(&self.link).map_err(at("let init go on")).map_err(|error| self.cause(error))
    }

    /// Why init could not be spoken to: what it has said last, if it has ended by itself.
    fn cause(&self, error: ContainerError) -> ContainerError {
        while let Ok(Some(report)) = link::receive_report(&self.link, RecvFlags::DONTWAIT) {
            if let Report::Failed(failure) = report {
                return failure.into();
            }
        }
        error
    }

    /// Waits for init. Its end is the end of the container: the kernel has killed and reaped all others by then.
    pub(crate) fn wait(&mut self) -> Result<WaitIdStatus, ContainerError> {
        // `__WALL`, as a child without an exit signal is invisible otherwise.
        let options = WaitIdOptions::EXITED | WaitIdOptions::from_bits_retain(libc::__WALL.cast_unsigned());
        let status = loop {
            match waitid(WaitId::PidFd(self.init.pidfd.as_fd()), options) {
                Err(Errno::INTR) => {}
                other => break other.map_err(at("wait for the container"))?,
            }
        };
        self.reaped = true;
        // No status is impossible here: only a wait that does not block returns without one.
        status.ok_or(Errno::CHILD).map_err(at("wait for the container"))
    }

    /// Somebody else has waited for init.
    pub(crate) fn forget(&mut self) {
        self.reaped = true;
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        if !self.reaped {
            let _ = pidfd_send_signal(&self.init.pidfd, Signal::KILL);
            let _ = self.wait();
        }
    }
}
