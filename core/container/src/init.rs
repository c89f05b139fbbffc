//! PID 1 of the container: builds it, then is what the caller made it for; for `run` it starts the command, and reaps and
//! forwards until the command ends.
//!
//! Everything here runs in the clone of a process with threads: system calls only (see the crate).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::Mode;
use rustix::io::{Errno, Result};
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::process::{
    DumpableBehavior, Gid, Pid, Signal, Uid, WaitOptions, kill_process, kill_process_group,
    set_dumpable_behavior, set_parent_process_death_signal, setpgid, setsid, umask, wait,
};
use rustix::thread::{
    UnshareFlags, set_name, set_thread_groups, set_thread_res_gid, set_thread_res_uid, unshare_unsafe,
};

use super::plan::{CommandPlan, Plan};
use super::report::Report;
use super::step::{Failure, Step};
use super::terminal::Terminal;
use super::{
    Covered, EXIT_NOT_STARTED, EXIT_SIGNAL_BASE, Network, command, confinement, devices, link, privileges,
    rootfs, signals, syscall, volumes,
};

/// Builds the container, waits for the caller, and is `inside` then, whose exit code it returns.
pub(super) fn run(
    plan: &Plan<'_>,
    link: &OwnedFd,
    kept: Option<BorrowedFd<'_>>,
    inside: impl FnOnce(&OwnedFd) -> i32,
) -> i32 {
    match set_up(plan, link, kept) {
        Ok(()) => inside(link),
        Err(failure) => {
            link::send_report(link, Report::Failed(failure));
            EXIT_NOT_STARTED
        }
    }
}

/// INIT STEPS. The order matters; each says why it stands where it stands.
fn set_up(plan: &Plan<'_>, link: &OwnedFd, kept: Option<BorrowedFd<'_>>) -> std::result::Result<(), Failure> {
    let privileged = plan.spec.privileged;

    // First, so that no copy of the caller's FUSE connection, cache or pipe outlives the caller in here.
    Step::CloseDescriptors.check(syscall::close_all_but(link, kept.unwrap_or(link.as_fd())))?;
    // All are blocked since the clone, so no handler of the caller has run.
    Step::ResetSignals.check(signals::reset_dispositions())?;
    // The first mount comes when the ids are mapped.
    let image = Step::MountScratch.check(link::receive_mount(link))?;
    if !privileged {
        // Before anything is made: until now this process is nobody in here.
        Step::BecomeRoot.check(become_root())?;
    }
    // After the change of the user, which clears it; before there is anything to leave behind. Needs our copy of the
    // caller's end closed.
    Step::DieWithCaller.check(die_with_caller(link))?;
    // Before the signals can be forwarded, else Ctrl-C would arrive twice: once as the group's, once
    // forwarded.
    Step::LeaveGroup.check(leave_group(plan.terminal.as_ref()))?;
    // Before any process of the image exists: `/proc/1/exe` and `/proc/1/mem` are the host's. The command is
    // refused them also for being in a user namespace, or for having fewer capabilities than we keep; this does not
    // depend on that.
    Step::HideInit.check(hide_init())?;
    // Inherited by the command, which must not search the keys of the caller's session.
    Step::NewKeyring.check(syscall::join_new_keyring())?;
    // Here and not with the clone, which would take the caller's cgroup for the root of all.
    Step::NewCgroups.check(own_cgroups())?;
    // The modes below are meant as written.
    umask(Mode::from_raw_mode(0o022));

    // Before the first mount, else the mounts would propagate to the host.
    Step::IsolateMounts.check(make_mounts_private())?;
    // The overlay's layers lie in it.
    let scratch = Step::MountScratch.check(rootfs::mount_scratch(plan, &image, link))?;
    // Every later mount stands on it.
    let root = Step::MountOverlay.check(rootfs::mount_overlay(plan, &scratch))?;
    // Before the volumes, so that no file of a volume is written; before the kernel's mounts, so that no link of the
    // image leads into them.
    for (place, file) in plan.files.iter().zip(&plan.spec.files) {
        Step::WriteFiles.check(volumes::write(&root, place, &file.content))?;
    }
    // Before the kernel's mounts, which cover what a volume shows in their place.
    let mut covered = [0; volumes::VOLUMES_MAX + 1];
    covered[0] = Step::AttachVolumes.check(volumes::number(&root))?;
    for (before, (place, _)) in (1..=volumes::VOLUMES_MAX).zip(&plan.volumes) {
        let volume = Step::AttachVolumes.check(link::receive_mount(link))?;
        covered[before] = Step::AttachVolumes.check(volumes::number(&volume))?;
        Step::AttachVolumes.check(volumes::attach(&root, place, volume, &covered[..before]))?;
    }
    // Links of the image may have led one before another. Before the kernel's mounts, which cover what they cover.
    for ((place, _), number) in plan.volumes.iter().zip(&covered[1..]) {
        Step::AttachVolumes.check(volumes::check_seen(&root, place, *number))?;
    }
    for (place, file) in plan.files.iter().zip(&plan.spec.files) {
        match file.covered {
            Covered::Refused => Step::WriteFiles.check(volumes::check_seen(&root, place, covered[0]))?,
            Covered::Allowed => {}
        }
    }
    // From inside the PID namespace, so that it shows this one's processes.
    Step::MountProc.check(rootfs::mount_proc(&root))?;
    // From inside the network namespace, so that it shows this one's interfaces.
    Step::MountSys.check(rootfs::mount_sys(plan, &root, link))?;
    let dev = Step::MountDev.check(devices::mount_dev(&root))?;
    // Before the pivot: they are the host's.
    Step::BindDevices.check(devices::bind_devices(&dev))?;
    Step::LinkDescriptors.check(devices::link_descriptors(&dev))?;
    Step::MountPts.check(devices::mount_pts(&dev))?;
    Step::MountShm.check(devices::mount_shm(&dev))?;
    // From inside the IPC namespace, so that it shows this one's queues.
    Step::MountMqueue.check(devices::mount_mqueue(&dev))?;
    if let Some(terminal) = &plan.terminal {
        Step::BindConsole.check(devices::bind_console(&dev, terminal))?;
    }
    if !privileged {
        // After /proc and /sys exist, before anything of the image could run. Masks last: they may lie
        // inside.
        Step::ProtectPaths.check(rootfs::protect_paths(&root))?;
        Step::MaskPaths.check(rootfs::mask_paths(&root, &scratch))?;
    }
    // The host's mounts are gone from here on, and the image cannot lead us back: all paths below are its
    // own.
    Step::EnterRoot.check(rootfs::enter(&root))?;

    Step::SetHostname.check(syscall::set_hostname(&plan.spec.hostname))?;
    match plan.spec.network {
        Network::None => Step::RaiseLoopback.check(raise_loopback())?,
        Network::Host => {}
    }
    // As root, since the command's user may not be allowed to. Where a volume lies on the way it is made in that.
    Step::CreateWorkdir.check(rootfs::create_directories(&plan.workdirs))?;
    // Last: whoever lets us go on knows that all of the above is done.
    link::send_report(link, Report::Built);
    Step::AwaitGo.check(link::wait_for_go(link))
}

/// CONFINEMENT STEPS, for an init that goes on as a program of ours and starts others: what it gives up, they do not
/// have.
pub(super) fn confine(plan: &Plan<'_>) -> std::result::Result<(), Failure> {
    let Some(kept) = plan.capabilities else { return Ok(()) };
    // While it may.
    Step::LimitResources.check(privileges::limit_resources())?;
    Step::DropCapabilities.check(privileges::limit(kept))?;
    Step::RefusePrivileges.check(rustix::thread::set_no_new_privs(true))?;
    Step::ConfineWrites.check(confinement::confine_writes())?;
    // Last: it refuses some of what the others need.
    plan.filters.map_or(Ok(()), |filters| Step::FilterCalls.check(filters.apply()))
}

/// PID 1 of `run`: starts the command and looks after it. Returns its exit code.
pub(super) fn command(plan: &Plan<'_>, command: &CommandPlan<'_>, link: &OwnedFd) -> i32 {
    let body = || command::run(plan, command, link);
    match Step::StartCommand.check(syscall::spawn(0, libc::SIGCHLD, None, body)) {
        Ok(child) => supervise(plan, child.pid, link),
        Err(failure) => {
            link::send_report(link, Report::Failed(failure));
            EXIT_NOT_STARTED
        }
    }
}

/// Takes the ids 0 of the namespace, whose map is written by now.
fn become_root() -> Result<()> {
    set_thread_groups(&[])?;
    set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT)?;
    set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT)
}

/// A kernel without cgroups has none to hide.
fn own_cgroups() -> Result<()> {
    // SAFETY: this process has one thread, and no files of its own depend on cgroups.
    match unsafe { unshare_unsafe(UnshareFlags::NEWCGROUP) } {
        Err(Errno::INVAL) => Ok(()),
        other => other,
    }
}

/// Asks for SIGKILL at the caller's end, which takes the whole PID namespace along.
fn die_with_caller(link: &OwnedFd) -> Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // It may have died before we asked. Its PID cannot tell, as every parent outside is 0 in here; the link
    // can.
    if syscall::is_broken(link)? { Err(Errno::SRCH) } else { Ok(()) }
}

/// Leaves what the caller's terminal signals: only the group when the command shall have the terminal, which
/// only its session can have; else the session too.
fn leave_group(terminal: Option<&Terminal>) -> Result<()> {
    match terminal {
        Some(_) => setpgid(None, None),
        None => setsid().map(drop),
    }
}

/// Makes `/proc/1` of use to nobody but the host's root, and tells a reader of `ps` what this copy of the
/// caller is.
fn hide_init() -> Result<()> {
    set_name(c"container-init")?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
}

fn make_mounts_private() -> Result<()> {
    mount_change(c"/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
}

fn raise_loopback() -> Result<()> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
    // Any socket will do: it only names the network namespace.
    let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    syscall::raise_loopback(&socket)
}

/// Reaps all that end, whoever their parent was, and forwards signals, until the command ends: then returns
/// its code. The kernel kills the others when PID 1 exits.
fn supervise(plan: &Plan<'_>, command: Pid, link: impl AsFd) -> i32 {
    loop {
        // Signals stay blocked and are taken one by one: PID 1 would not even be sent those without a
        // handler.
        match signals::wait_for_signal().ok().and_then(signals::named) {
            Some(Signal::CHILD) => {
                if let Some(code) = reap(plan, command, &link) {
                    return code;
                }
            }
            // After Ctrl-Z the whole group is stopped, not only its leader.
            Some(Signal::CONT) => drop(kill_process_group(command, Signal::CONT)),
            Some(signal) => drop(kill_process(command, signal)),
            // Interrupted, or a real-time signal, which means something only to who has agreed on it.
            None => {}
        }
    }
}

/// Reaps what has ended by now. Some when the command is among them: its exit code.
fn reap(plan: &Plan<'_>, command: Pid, link: impl AsFd) -> Option<i32> {
    let options = WaitOptions::NOHANG | WaitOptions::UNTRACED;
    while let Ok(Some((pid, status))) = wait(options) {
        if pid != command {
            continue;
        }
        if status.stopped() {
            if plan.terminal.is_some() {
                link::send_report(&link, Report::Stopped);
            }
            continue;
        }
        let killed_by = status.terminating_signal().unwrap_or_default();
        return Some(status.exit_status().unwrap_or(EXIT_SIGNAL_BASE + killed_by));
    }
    None
}
