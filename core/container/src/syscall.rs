//! The system calls that rustix does not have, each behind a safe function.
//!
//! All may be called between the clone and the exec: they neither allocate nor lock. With `signals` this is
//! all the unsafe code of the container.

use std::ffi::{CStr, CString, c_char, c_long};
use std::io;
use std::marker::PhantomData;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use rustix::io::{Errno, Result};
use rustix::process::Pid;

/// An exit signal of [`spawn`]: the child's end sends nothing, so that neither the caller's SIGCHLD handler
/// nor a `waitpid(-1)` elsewhere in its process meets a child that it does not know.
pub(super) const SILENT: i32 = 0;

// SAFETY: Rust's runtime opens these three before `main`, and no code of ours closes them. The C library's
// and std's own names for them are not used, as std's take a lock.
pub(super) const STDIN: BorrowedFd<'static> = unsafe { BorrowedFd::borrow_raw(libc::STDIN_FILENO) };
// SAFETY: as above.
pub(super) const STDOUT: BorrowedFd<'static> = unsafe { BorrowedFd::borrow_raw(libc::STDOUT_FILENO) };
// SAFETY: as above.
pub(super) const STDERR: BorrowedFd<'static> = unsafe { BorrowedFd::borrow_raw(libc::STDERR_FILENO) };

/// A flag of clone3 alone.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// A child process. Its pidfd cannot come to mean another process, as its pid can.
#[derive(Debug)]
pub(super) struct Child {
    pub(super) pid: Pid,
    pub(super) pidfd: OwnedFd,
}

/// Exits when dropped, so that a child of [`spawn`] can never return or unwind into the frames of its parent.
struct ExitOnDrop(i32);

impl Drop for ExitOnDrop {
    fn drop(&mut self) {
        // SAFETY: `_exit` has no preconditions; unlike `exit` it runs no handlers and flushes no buffers,
        // which are the parent's.
        unsafe { libc::_exit(self.0) }
    }
}

/// Clones this process into the new `namespaces` and runs `body` in the copy, whose exit code it returns.
///
/// Only the calling thread exists in the copy, and locks of other threads stay locked there for ever: `body`
/// must make system calls only. It is a safe function because breaking this is a hang, not undefined
/// behaviour.
pub(super) fn spawn(
    namespaces: u64,
    exit_signal: i32,
    cgroup: Option<BorrowedFd<'_>>,
    body: impl FnOnce() -> i32,
) -> Result<Child> {
    let mut pidfd: RawFd = -1;
    let into_cgroup = if cgroup.is_some() { CLONE_INTO_CGROUP } else { 0 };
    let arguments = libc::clone_args {
        flags: namespaces | into_cgroup | u64::from(libc::CLONE_PIDFD.cast_unsigned()),
        cgroup: cgroup.map_or(0, |cgroup| u64::from(cgroup.as_raw_fd().cast_unsigned())),
        pidfd: (&raw mut pidfd).addr() as u64,
        exit_signal: u64::from(exit_signal.cast_unsigned()),
        // SAFETY: all fields are integers, for which zero is the value "not used".
        ..unsafe { zeroed() }
    };
    // SAFETY: without CLONE_VM and without a stack of its own this is a fork: the copy goes on here on its
    // own copy of the stack. `arguments` and `pidfd` outlive the call.
    let pid = check(unsafe {
        libc::syscall(libc::SYS_clone3, &raw const arguments, size_of::<libc::clone_args>())
    })?;
    let Some(pid) = Pid::from_raw(i32::try_from(pid).map_err(|_| Errno::OVERFLOW)?) else {
        let mut exit = ExitOnDrop(libc::EXIT_FAILURE);
        exit.0 = body();
        drop(exit);
        unreachable!("the process has exited");
    };
    // SAFETY: the kernel has just made this descriptor for us alone.
    Ok(Child { pid, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } })
}

/// A NULL-terminated array of C strings, as `execve` takes it.
pub(super) struct Pointers<'a> {
    array: Vec<*const c_char>,
    strings: PhantomData<&'a [CString]>,
}

impl<'a> Pointers<'a> {
    pub(super) fn new(strings: &'a [CString]) -> Self {
        let array = strings.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect();
        Pointers { array, strings: PhantomData }
    }
}

/// Becomes `program`. Returns only when that fails.
pub(super) fn execute(program: &CStr, argv: &Pointers<'_>, env: &Pointers<'_>) -> Errno {
    // SAFETY: both arrays end with NULL and point to C strings that their lifetimes keep alive.
    unsafe { libc::execve(program.as_ptr(), argv.array.as_ptr(), env.array.as_ptr()) };
    last_error()
}

/// Closes all descriptors above stderr but these two.
pub(super) fn close_all_but(one: impl AsFd, other: impl AsFd) -> Result<()> {
    let [one, other] = [one.as_fd(), other.as_fd()].map(|fd| fd.as_raw_fd().cast_unsigned());
    let close = |first: u32, last: u32| {
        if first > last {
            return Ok(());
        }
        // SAFETY: the owners of the closed descriptors are the parent's threads; none of them runs in this
        // process.
        check(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) }).map(drop)
    };
    let (low, high) = (one.min(other), one.max(other));
    close(libc::STDERR_FILENO.cast_unsigned() + 1, low.saturating_sub(1))?;
    close(low + 1, high.saturating_sub(1))?;
    close(high + 1, u32::MAX)
}

/// Whether the other end of this socket has been closed by all who had it.
pub(super) fn is_broken(socket: impl AsFd) -> Result<bool> {
    let mut poll = libc::pollfd { fd: socket.as_fd().as_raw_fd(), events: 0, revents: 0 };
    // SAFETY: one valid pollfd.
    check(unsafe { libc::poll(&raw mut poll, 1, 0) }.into())?;
    Ok(poll.revents & libc::POLLHUP != 0)
}

/// Locks one byte of a file for writing, for as long as this open file is open anywhere. `AGAIN` when somebody has it.
pub(super) fn lock_byte(file: impl AsFd, offset: i64) -> Result<()> {
    // SAFETY: plain data, for which zero is valid; an open file's lock wants `l_pid` 0.
    let mut lock: libc::flock = unsafe { zeroed() };
    lock.l_type = libc::F_WRLCK as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    (lock.l_start, lock.l_len) = (offset, 1);
    // SAFETY: `lock` outlives the call and has the type that this command reads.
    check(unsafe { libc::fcntl(file.as_fd().as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) }.into())
        .map(drop)
}

/// Maps the ids of a mount, and of those below it, as a user namespace does.
pub(super) fn map_mount_ids(mount: impl AsFd, users: impl AsFd) -> Result<()> {
    let users = u64::from(users.as_fd().as_raw_fd().cast_unsigned());
    change_mount(
        mount,
        &libc::mount_attr { attr_set: libc::MOUNT_ATTR_IDMAP, attr_clr: 0, propagation: 0, userns_fd: users },
    )
}

/// Loads a seccomp filter.
pub(super) fn filter_calls(program: &[libc::sock_filter]) -> Result<()> {
    let len = u16::try_from(program.len()).map_err(|_| Errno::INVAL)?;
    let program = libc::sock_fprog { len, filter: program.as_ptr().cast_mut() };
    // SAFETY: both structs are the kernel's; it reads as many instructions as the slice has, and writes none.
    check(unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) })
        .map(drop)
}

/// Sleeps.
pub(super) fn pause_ms(ms: i64) {
    let time = libc::timespec { tv_sec: 0, tv_nsec: ms * 1_000_000 };
    // SAFETY: a valid time; NULL asks for no rest.
    unsafe { libc::nanosleep(&raw const time, ptr::null_mut()) };
}

/// Adds `MOUNT_ATTR_*` flags to a copy of a mount and to all mounts below it, and lets what is mounted in them be seen in
/// them alone: a copy is its original's peer, and would pass it on to the host.
pub(super) fn set_copy_apart(mount: impl AsFd, attributes: u64) -> Result<()> {
    let propagation = libc::MS_PRIVATE;
    change_mount(mount, &libc::mount_attr { attr_set: attributes, attr_clr: 0, propagation, userns_fd: 0 })
}

fn change_mount(mount: impl AsFd, change: &libc::mount_attr) -> Result<()> {
    let flags = libc::AT_EMPTY_PATH | libc::AT_RECURSIVE;
    let (mount, size) = (mount.as_fd().as_raw_fd(), size_of::<libc::mount_attr>());
    // SAFETY: the path is an empty C string and `change` outlives the call.
    check(unsafe {
        libc::syscall(libc::SYS_mount_setattr, mount, c"".as_ptr(), flags, ptr::from_ref(change), size)
    })
    .map(drop)
}

/// Sets the host name of the current UTS namespace.
pub(super) fn set_hostname(name: &str) -> Result<()> {
    // SAFETY: pointer and length of one string.
    check(unsafe { libc::sethostname(name.as_ptr().cast(), name.len()) }.into()).map(drop)
}

/// Leaves the caller's session keyring for an empty one. A kernel without keyrings has nothing to leave.
pub(super) fn join_new_keyring() -> Result<()> {
    // SAFETY: a NULL name asks for an anonymous keyring.
    let joined = unsafe {
        libc::syscall(libc::SYS_keyctl, libc::KEYCTL_JOIN_SESSION_KEYRING, ptr::null::<c_char>(), 0, 0, 0)
    };
    match check(joined) {
        Err(Errno::NOSYS) => Ok(()),
        other => other.map(drop),
    }
}

/// Sets `IFF_UP` on `lo`; the kernel gives it its addresses then.
pub(super) fn raise_loopback(socket: impl AsFd) -> Result<()> {
    // SAFETY: plain data, for which zero is valid.
    let mut request: libc::ifreq = unsafe { zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(c"lo".to_bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    // SAFETY: `request` outlives the call and has the type that this request reads.
    check(unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) }.into())
        .map(drop)
}

/// This process's group; none when a PID namespace hides it, where the kernel says 0.
pub(super) fn own_group() -> Option<Pid> {
    // SAFETY: no pointers.
    Pid::from_raw(unsafe { libc::getpgrp() })
}

/// The foreground process group of a terminal: 0 when this namespace cannot see it.
pub(super) fn foreground_group(terminal: BorrowedFd<'_>) -> Result<i32> {
    // SAFETY: no pointers.
    let group = unsafe { libc::tcgetpgrp(terminal.as_raw_fd()) };
    check(group.into()).map(|_| group)
}

/// Puts a process group into the foreground. The caller blocks or ignores SIGTTOU.
pub(super) fn set_foreground_group(terminal: BorrowedFd<'_>, group: Pid) -> Result<()> {
    // SAFETY: no pointers.
    check(unsafe { libc::tcsetpgrp(terminal.as_raw_fd(), group.as_raw_pid()) }.into()).map(drop)
}

/// Stops this process as Ctrl-Z would, and returns when it is continued.
pub(super) fn stop_self() {
    // SAFETY: no pointers. `raise` stops the calling thread before it returns; `kill` could pick another one
    // first.
    unsafe { libc::raise(libc::SIGSTOP) };
}

/// The version of Landlock that the kernel speaks, or an error when it has none.
pub(super) fn landlock_version() -> Result<i64> {
    const VERSION: u32 = 1;
    // SAFETY: with this flag the kernel reads no attributes.
    check(unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, ptr::null::<u64>(), 0, VERSION) })
}

/// A Landlock ruleset that refuses these `LANDLOCK_ACCESS_FS_*` wherever no rule allows them.
pub(super) fn landlock_ruleset(refused: u64) -> Result<OwnedFd> {
    // The first field of `struct landlock_ruleset_attr`; the kernel takes the shorter struct of its first
    // version.
    let attributes = [refused];
    let size = size_of_val(&attributes);
    // SAFETY: `attributes` outlives the call and is as long as `size` says.
    let fd =
        check(unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, attributes.as_ptr(), size, 0) })?;
    // SAFETY: the kernel has just made this descriptor for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(RawFd::try_from(fd).map_err(|_| Errno::OVERFLOW)?) })
}

/// Allows `access` on a file, or on a directory and all below it.
pub(super) fn landlock_allow(ruleset: impl AsFd, path: impl AsFd, access: u64) -> Result<()> {
    const PATH_BENEATH: u32 = 1;
    /// `struct landlock_path_beneath_attr`.
    #[repr(C, packed)]
    struct PathBeneath {
        allowed_access: u64,
        parent_fd: RawFd,
    }
    let rule = PathBeneath { allowed_access: access, parent_fd: path.as_fd().as_raw_fd() };
    let ruleset = ruleset.as_fd().as_raw_fd();
    // SAFETY: `rule` outlives the call and is laid out as the kernel's struct.
    check(unsafe { libc::syscall(libc::SYS_landlock_add_rule, ruleset, PATH_BENEATH, &raw const rule, 0) })
        .map(drop)
}

/// Puts this process and its children under the ruleset for good.
pub(super) fn landlock_restrict(ruleset: impl AsFd) -> Result<()> {
    // SAFETY: no pointers.
    check(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_fd().as_raw_fd(), 0) })
        .map(drop)
}

/// The C convention: -1 means look at errno.
pub(super) fn check(result: c_long) -> Result<i64> {
    if result == -1 { Err(last_error()) } else { Ok(result) }
}

fn last_error() -> Errno {
    Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)
}
