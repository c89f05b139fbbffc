//! What a hostile program tries from inside, as root of the container, and the kernel's answer.
//!
//! The program is the closure that [`Container::start`] runs as PID 1 when all is built and given up. This process has
//! threads, so it makes system calls and nothing else.

use std::ffi::CStr;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::time::{Duration, Instant};

use libc::{c_long, c_void};
use rustix::io::Errno;

use super::super::{Container, News, Spec, syscall};
use super::harness::{Image, spec};

/// Most attempts of one test.
const ATTEMPTS: usize = 64;

/// Runs the attempts inside and returns the answer to each: 0 or an errno.
fn answers(attempts: &[(&str, Attempt)]) -> Vec<i32> {
    let image = Image::new();
    let (reader, writer) = rustix::pipe::pipe().expect("pipe");
    let out = writer.as_raw_fd();
    let tries: Vec<Attempt> = attempts.iter().map(|(_, attempt)| *attempt).collect();
    assert!(tries.len() <= ATTEMPTS);
    let container = start(&spec(image.path("")), writer.as_fd(), || {
        let mut answers = [0i32; ATTEMPTS];
        for (answer, attempt) in answers.iter_mut().zip(&tries) {
            *answer = match syscall::check(attempt(out)) {
                Ok(_) => 0,
                Err(errno) => errno.raw_os_error(),
            };
        }
        // SAFETY: the array outlives the call.
        unsafe { libc::write(out, answers.as_ptr().cast(), size_of_val(&answers)) };
        0
    });
    drop(writer);
    let mut bytes = Vec::new();
    File::from(reader).read_to_end(&mut bytes).expect("answers");
    drop(container);
    let (words, _) = bytes.as_chunks::<4>();
    words.iter().take(attempts.len()).map(|word| i32::from_ne_bytes(*word)).collect()
}

type Attempt = fn(RawFd) -> c_long;

fn start(spec: &Spec, kept: std::os::fd::BorrowedFd<'_>, serve: impl FnOnce() -> i32) -> Container {
    let container = Container::start(spec, kept, serve).expect("starts");
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        match container.news() {
            News::Building => {}
            News::Built => break,
            News::Failed(error) => panic!("{error}: {:?}", std::error::Error::source(&error)),
            News::Gone => panic!("gone"),
        }
        assert!(Instant::now() < end, "it is not built");
        std::thread::sleep(Duration::from_millis(1));
    }
    container.go().expect("go");
    container
}

/// A system call with plain numbers.
macro_rules! call {
    ($number:ident $(, $argument:expr)*) => {
        // SAFETY: no argument points to memory that the kernel could write; it is refused, or the test fails.
        |_| unsafe { libc::syscall(libc::$number $(, $argument)*) }
    };
}

fn open(path: &CStr, flags: i32) -> c_long {
    // SAFETY: a C string.
    unsafe { libc::open(path.as_ptr(), flags) }.into()
}

fn make(path: &CStr, kind: libc::mode_t, device: libc::dev_t) -> c_long {
    // SAFETY: a C string.
    unsafe { libc::mknod(path.as_ptr(), kind | 0o600, device) }.into()
}

/// A number that no kernel has yet.
fn tomorrow() -> c_long {
    // SAFETY: no pointers.
    unsafe { libc::syscall(1000) }
}

const NULL: *const c_void = std::ptr::null();

#[test]
fn what_reaches_the_kernel_is_refused() {
    const EPERM: Errno = Errno::PERM;
    const ENOSYS: Errno = Errno::NOSYS;
    let attempts: &[(&str, Attempt, Errno)] = &[
        ("search keys", call!(SYS_keyctl, libc::KEYCTL_JOIN_SESSION_KEYRING, NULL), EPERM),
        ("add a key", call!(SYS_add_key, NULL, NULL, NULL, 0, 0), EPERM),
        ("load a program into the kernel", call!(SYS_bpf, 0, NULL, 0), EPERM),
        ("watch the kernel", call!(SYS_perf_event_open, NULL, 0, -1, -1, 0), EPERM),
        ("ask by rings", call!(SYS_io_uring_setup, 8, NULL), EPERM),
        ("serve page faults", call!(SYS_userfaultfd, 0), EPERM),
        ("mount", call!(SYS_mount, c"none".as_ptr(), c"/tmp".as_ptr(), c"tmpfs".as_ptr(), 0, NULL), EPERM),
        ("unmount a mask", call!(SYS_umount2, c"/proc/kcore".as_ptr(), libc::MNT_DETACH), EPERM),
        ("make a file system", call!(SYS_fsopen, c"tmpfs".as_ptr(), 0), EPERM),
        ("copy a mount", call!(SYS_open_tree, libc::AT_FDCWD, c"/".as_ptr(), 1), EPERM),
        (
            "change a mount",
            call!(SYS_mount_setattr, libc::AT_FDCWD, c"/proc/sys".as_ptr(), 0, NULL, 0),
            EPERM,
        ),
        ("pivot", call!(SYS_pivot_root, c".".as_ptr(), c".".as_ptr()), EPERM),
        ("unshare users", call!(SYS_unshare, libc::CLONE_NEWUSER), EPERM),
        ("unshare mounts", call!(SYS_unshare, libc::CLONE_NEWNS), EPERM),
        ("clone users", call!(SYS_clone, libc::CLONE_NEWUSER | libc::SIGCHLD, 0, 0, 0, 0), EPERM),
        ("clone a network", call!(SYS_clone, libc::CLONE_NEWNET | libc::SIGCHLD, 0, 0, 0, 0), EPERM),
        ("clone by a struct", call!(SYS_clone3, NULL, 0), ENOSYS),
        ("enter a namespace", call!(SYS_setns, 0, 0), EPERM),
        ("open by handle", call!(SYS_open_by_handle_at, 0, NULL, 0), EPERM),
        ("take a descriptor", call!(SYS_pidfd_getfd, 0, 0, 0), EPERM),
        ("load another kernel", call!(SYS_kexec_load, 0, 0, NULL, 0), EPERM),
        ("load a module", call!(SYS_finit_module, 0, c"".as_ptr(), 0), EPERM),
        ("unload a module", call!(SYS_delete_module, c"overlay".as_ptr(), 0), EPERM),
        ("reboot", call!(SYS_reboot, 0, 0, 0, NULL), EPERM),
        ("set the clock", call!(SYS_clock_settime, libc::CLOCK_REALTIME, NULL), EPERM),
        ("read the kernel's log", call!(SYS_syslog, 2, NULL, 0), EPERM),
        ("reach the hypervisor", call!(SYS_socket, libc::AF_VSOCK, libc::SOCK_STREAM, 0), EPERM),
        ("type for the caller", call!(SYS_ioctl, 0, 0x5412, c"x".as_ptr()), EPERM),
        ("type for it with more bits", call!(SYS_ioctl, 0, 0x1_0000_5412u64, c"x".as_ptr()), EPERM),
        ("swap", call!(SYS_swapon, c"/x".as_ptr(), 0), EPERM),
        ("rename the host", call!(SYS_sethostname, c"x".as_ptr(), 1), EPERM),
        ("a call of tomorrow", |_| tomorrow(), ENOSYS),
    ];
    let plain: Vec<(&str, Attempt)> = attempts.iter().map(|(name, attempt, _)| (*name, *attempt)).collect();
    let found = answers(&plain);
    assert_eq!(found.len(), attempts.len());
    for ((name, _, expected), found) in attempts.iter().zip(found) {
        assert_eq!(Errno::from_raw_os_error(found), *expected, "{name}");
    }
}

#[test]
fn what_reaches_the_host_by_files_is_refused() {
    let attempts: &[(&str, Attempt, &[Errno])] = &[
        (
            "change a setting",
            |_| open(c"/proc/sys/kernel/core_pattern", libc::O_WRONLY),
            &[Errno::ROFS, Errno::ACCESS],
        ),
        (
            "press a key",
            |_| open(c"/proc/sysrq-trigger", libc::O_WRONLY),
            &[Errno::ROFS, Errno::ACCESS, Errno::NOENT],
        ),
        (
            "change a device",
            |_| open(c"/sys/power/state", libc::O_WRONLY),
            &[Errno::ROFS, Errno::ACCESS, Errno::NOENT],
        ),
        ("out by dots", |_| open(c"/../../../../../../run/g8os", libc::O_RDONLY), &[Errno::NOENT]),
        ("a disk", |_| make(c"/disk", libc::S_IFBLK, 0x0700), &[Errno::PERM]),
        ("memory", |_| make(c"/mem", libc::S_IFCHR, 0x0101), &[Errno::PERM]),
        (
            "raise a limit",
            |_| {
                let limit = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
                // SAFETY: the struct outlives the call.
                unsafe { libc::setrlimit(libc::RLIMIT_NPROC, &raw const limit) }.into()
            },
            &[Errno::PERM],
        ),
        ("become nobody's user", call!(SYS_setuid, 70_000), &[Errno::INVAL]),
    ];
    let plain: Vec<(&str, Attempt)> = attempts.iter().map(|(name, attempt, _)| (*name, *attempt)).collect();
    for ((name, _, expected), found) in attempts.iter().zip(answers(&plain)) {
        assert!(expected.contains(&Errno::from_raw_os_error(found)), "{name}: {found}");
    }
}

#[test]
fn no_process_of_the_host_can_be_named() {
    /// The pid of this test, for a closure that has no environment.
    static OUTSIDE: std::sync::atomic::AtomicI32 = std::sync::atomic::AtomicI32::new(0);
    fn outside() -> i32 {
        OUTSIDE.load(std::sync::atomic::Ordering::SeqCst)
    }
    // A number that is a process out here and cannot be one in there: the namespace has a single one.
    OUTSIDE.store(std::process::id().cast_signed(), std::sync::atomic::Ordering::SeqCst);
    let attempts: &[(&str, Attempt)] = &[
        ("trace", call!(SYS_ptrace, libc::PTRACE_SEIZE, outside(), 0, 0)),
        ("signal", call!(SYS_kill, outside(), 0)),
        ("open", call!(SYS_pidfd_open, outside(), 0)),
        ("read memory", |_| {
            let mut byte = 0u8;
            let piece = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
            // SAFETY: both pieces outlive the call.
            unsafe {
                libc::syscall(
                    libc::SYS_process_vm_readv,
                    outside(),
                    &raw const piece,
                    1usize,
                    &raw const piece,
                    1usize,
                    0usize,
                )
            }
        }),
        // The parent is outside: no number at all.
        ("the parent", |_| if rustix::process::getppid().is_none() { 0 } else { -1 }),
    ];
    let found = answers(attempts);
    assert_eq!(found, [libc::ESRCH, libc::ESRCH, libc::ESRCH, libc::ESRCH, 0]);
}

#[test]
fn no_descriptor_of_the_caller_is_open_inside() {
    // Something to be found, above and below.
    let open_here: Vec<File> = (0..40).map(|_| File::open("/dev/zero").expect("open")).collect();
    let attempts: &[(&str, Attempt)] = &[("count", |kept| {
        // SAFETY: no pointers.
        let is_open = |fd: &RawFd| unsafe { libc::fcntl(*fd, libc::F_GETFD) } != -1;
        let count = (3..4096).filter(is_open).count();
        // The pipe of the answers, and init's link.
        if count == 2 && is_open(&kept) { 0 } else { -1 }
    })];
    assert_eq!(answers(attempts), [0]);
    drop(open_here);
}
