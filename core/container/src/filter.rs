//! The system calls that a container may not make, by seccomp.
//!
//! Refused with EPERM is what docker's default profile refuses: what changes the kernel, its mounts or its keys, or reaches a
//! large and rarely watched part of it. ENOSYS is the answer to numbers that are newer than this list, so that programs take
//! their older way, and to clone3, whose flags lie where no filter can read them.
//!
//! The program is a binary search over the ranges of numbers that have one answer. The kernel compiles it for each container
//! anew, and runs it for each number there is while it does: written as one comparison after the other, that was the tenth
//! part of the time that a container took.
//!
//! Limits: the kernel kills programs of another architecture, 32-bit ones too. ptrace stays allowed, as docker's: it
//! reaches what this PID namespace shows.

use std::mem::offset_of;
use std::sync::LazyLock;

use libc::{c_long, seccomp_data, sock_filter};
use rustix::io::{Errno, Result};

use crate::{ContainerError, syscall};

/// Refused whatever the arguments.
const REFUSED: &[c_long] = &[
    // Keys are not divided by namespaces.
    libc::SYS_add_key,
    libc::SYS_keyctl,
    libc::SYS_request_key,
    // Programs inside the kernel, and what watches it.
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_kcmp,
    libc::SYS_lookup_dcookie,
    libc::SYS_fanotify_init,
    // Mounts.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    // Other namespaces.
    libc::SYS_setns,
    libc::SYS_unshare,
    // Files that were opened elsewhere.
    libc::SYS_open_by_handle_at,
    libc::SYS_pidfd_getfd,
    // The machine: its kernel, its clock, its name, its end.
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_reboot,
    libc::SYS_acct,
    libc::SYS_vhangup,
    libc::SYS_syslog,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    // Where memory lies in the machine.
    libc::SYS_mbind,
    libc::SYS_set_mempolicy,
    libc::SYS_migrate_pages,
    libc::SYS_move_pages,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS__sysctl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_uselib,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ustat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_sysfs,
    libc::SYS_nfsservctl,
];

/// Any of these flags makes a new namespace.
const NAMESPACES: u32 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET)
    .cast_unsigned();

/// What puts characters into the input of a terminal, which may be that of the caller's shell: TIOCSTI and TIOCLINUX.
const TYPING: [u32; 2] = [0x5412, 0x541c];

/// Families of sockets that are in no namespace: those to the hypervisor.
const EVERYWHERE: [u32; 1] = [libc::AF_VSOCK.cast_unsigned()];

/// The last number of the table that all architectures share, as of Linux 6.10 (`mseal`).
const LAST: c_long = 462;
/// The first number of that table.
const SHARED_FIRST: c_long = 424;
/// The last number before it.
#[cfg(target_arch = "x86_64")]
const OWN_LAST: c_long = 334;
#[cfg(not(target_arch = "x86_64"))]
const OWN_LAST: c_long = 294;

/// How the kernel calls this architecture (linux/audit.h); none where the numbers of its calls are not known here.
const ARCHITECTURE: Option<u32> = if cfg!(target_arch = "x86_64") {
    Some(0xc000_003e)
} else if cfg!(target_arch = "aarch64") {
    Some(0xc000_00b7)
} else {
    None
};

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Allowed,
    /// EPERM.
    Refused,
    /// ENOSYS.
    Unknown,
    /// EPERM when the lower half of this argument is one of these.
    RefusedIf(usize, &'static [u32]),
    /// EPERM when this argument has any of these bits.
    RefusedWith(usize, u32),
}

impl Verdict {
    fn of(number: c_long) -> Verdict {
        match number {
            libc::SYS_clone3 => Verdict::Unknown,
            libc::SYS_clone => Verdict::RefusedWith(0, NAMESPACES),
            // The kernel looks at no more of it than its lower half either.
            libc::SYS_ioctl => Verdict::RefusedIf(1, &TYPING),
            libc::SYS_socket => Verdict::RefusedIf(0, &EVERYWHERE),
            _ if REFUSED.contains(&number) => Verdict::Refused,
            _ if (0..=OWN_LAST).contains(&number) || (SHARED_FIRST..=LAST).contains(&number) => {
                Verdict::Allowed
            }
            _ => Verdict::Unknown,
        }
    }

    /// The instructions that end with it.
    fn program(self) -> Vec<sock_filter> {
        let (allowed, refused) = (give(libc::SECCOMP_RET_ALLOW), give_errno(Errno::PERM));
        // The lower half comes first: all architectures that are known here are little-endian.
        let argument = |index: usize| load(offset_of!(seccomp_data, args) + index * size_of::<u64>());
        match self {
            Verdict::Allowed => vec![allowed],
            Verdict::Refused => vec![refused],
            Verdict::Unknown => vec![give_errno(Errno::NOSYS)],
            Verdict::RefusedIf(index, values) => {
                let compare = values.iter().enumerate().map(|(number, value)| {
                    let others = values.len() - 1 - number;
                    jump(libc::BPF_JEQ, *value, others + 1, 0)
                });
                [argument(index)].into_iter().chain(compare).chain([allowed, refused]).collect()
            }
            Verdict::RefusedWith(index, bits) => {
                vec![argument(index), jump(libc::BPF_JSET, bits, 1, 0), allowed, refused]
            }
        }
    }
}

/// The filter; made once in a process, before it clones.
pub(crate) struct Filters(Vec<sock_filter>);

/// The filter, or why there is none: an architecture that is not known here.
pub(crate) fn filters() -> std::result::Result<&'static Filters, ContainerError> {
    static FILTERS: LazyLock<Option<Filters>> = LazyLock::new(|| ARCHITECTURE.map(compile));
    let here = std::env::consts::ARCH;
    FILTERS
        .as_ref()
        .ok_or_else(|| ContainerError::Filter(format!("the numbers of the calls of {here} are not known")))
}

fn compile(architecture: u32) -> Filters {
    let mut ranges: Vec<(u32, Verdict)> = Vec::new();
    // From the number after the last one on all are unknown.
    for number in 0..=LAST + 1 {
        let verdict = Verdict::of(number);
        if ranges.last().is_none_or(|(_, last)| *last != verdict) {
            ranges.push((number as u32, verdict));
        }
    }
    let begin = [
        load(offset_of!(seccomp_data, arch)),
        jump(libc::BPF_JEQ, architecture, 1, 0),
        give(libc::SECCOMP_RET_KILL_PROCESS),
        load(offset_of!(seccomp_data, nr)),
    ];
    Filters(begin.into_iter().chain(search(&ranges)).collect())
}

/// Goes to the verdict of the range that the number is in; each begins where it says.
fn search(ranges: &[(u32, Verdict)]) -> Vec<sock_filter> {
    let (lower, upper) = ranges.split_at(ranges.len() / 2);
    match (lower, upper) {
        ([], [(_, verdict)]) => verdict.program(),
        (_, []) => Vec::new(),
        (_, [(begin, _), ..]) => {
            let lower = search(lower);
            [jump(libc::BPF_JGE, *begin, lower.len(), 0)]
                .into_iter()
                .chain(lower)
                .chain(search(upper))
                .collect()
        }
    }
}

fn instruction(code: u32, jt: usize, jf: usize, k: u32) -> sock_filter {
    let offset =
        |offset: usize| u8::try_from(offset).expect("a jump is over half of the filter: a test sees to that");
    sock_filter { code: code as u16, jt: offset(jt), jf: offset(jf), k }
}

fn load(offset: usize) -> sock_filter {
    instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, offset as u32)
}

/// Goes on so many instructions further, when it holds and when it does not.
fn jump(condition: u32, value: u32, holds: usize, fails: usize) -> sock_filter {
    instruction(libc::BPF_JMP | condition | libc::BPF_K, holds, fails, value)
}

fn give(action: u32) -> sock_filter {
    instruction(libc::BPF_RET | libc::BPF_K, 0, 0, action)
}

fn give_errno(errno: Errno) -> sock_filter {
    give(libc::SECCOMP_RET_ERRNO | errno.raw_os_error().cast_unsigned())
}

impl Filters {
    /// Puts this process and all that it starts under the filter for good. Needs no_new_privs.
    pub(crate) fn apply(&self) -> Result<()> {
        syscall::filter_calls(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel would do (linux/seccomp.h), after how many instructions.
    fn run(program: &[sock_filter], arch: u32, number: c_long, args: [u64; 2]) -> (u32, usize) {
        let halves = |value: u64| [value as u32, (value >> 32) as u32];
        let mut data = vec![number as u32, arch, 0, 0];
        data.extend(args.into_iter().flat_map(halves));
        let (mut at, mut loaded, mut steps) = (0, 0, 0);
        loop {
            let sock_filter { code, jt, jf, k } = program[at];
            let (code, k_offset) = (u32::from(code), k as usize / 4);
            (at, steps) = (at + 1, steps + 1);
            let holds = match code & !libc::BPF_JMP {
                libc::BPF_JEQ => loaded == k,
                libc::BPF_JGE => loaded >= k,
                libc::BPF_JSET => loaded & k != 0,
                _ => false,
            };
            match code & 7 {
                libc::BPF_LD => loaded = data[k_offset],
                libc::BPF_JMP => at += usize::from(if holds { jt } else { jf }),
                libc::BPF_RET => return (k, steps),
                _ => panic!("{code}"),
            }
        }
    }

    #[test]
    fn every_call_gets_its_answer_and_within_a_few_comparisons() {
        const BPF_MAXINSNS: usize = 4096;
        let filters = filters().unwrap_or_else(|error| panic!("{error}"));
        let arch = ARCHITECTURE.expect("it is known");
        assert!(filters.0.len() <= BPF_MAXINSNS, "{}", filters.0.len());
        let (allow, eperm) = (libc::SECCOMP_RET_ALLOW, give_errno(Errno::PERM).k);
        let enosys = give_errno(Errno::NOSYS).k;
        // Also what comes after the table, with the bit of the x32 calls, and below zero.
        for number in (0..1000).chain([0x4000_0000, 0x4000_0010, c_long::from(i32::MAX), -1]) {
            let (answer, steps) = run(&filters.0, arch, number, [0, 0]);
            let expected = match number {
                _ if REFUSED.contains(&number) => eperm,
                libc::SYS_clone3 => enosys,
                0..=OWN_LAST | SHARED_FIRST..=LAST => allow,
                _ => enosys,
            };
            assert_eq!(answer, expected, "{number}");
            assert!(steps <= 16, "{number}: {steps}");
            let foreign = run(&filters.0, arch ^ 1, number, [0, 0]).0;
            assert_eq!(foreign, libc::SECCOMP_RET_KILL_PROCESS, "{number}");
        }
    }

    #[test]
    fn calls_that_depend_on_their_arguments_are_refused_by_what_the_kernel_reads_of_them() {
        let filters = filters().unwrap_or_else(|error| panic!("{error}"));
        let refused = |number, args| {
            let (answer, _) = run(&filters.0, ARCHITECTURE.expect("it is known"), number, args);
            assert!([libc::SECCOMP_RET_ALLOW, give_errno(Errno::PERM).k].contains(&answer), "{answer:x}");
            answer != libc::SECCOMP_RET_ALLOW
        };
        for flag in (0..32).map(|bit| 1_u32 << bit) {
            let thread = (libc::CLONE_VM | libc::CLONE_THREAD | libc::CLONE_SIGHAND).cast_unsigned();
            let makes_one = NAMESPACES & flag != 0;
            assert_eq!(refused(libc::SYS_clone, [u64::from(thread | flag), 0]), makes_one, "{flag:x}");
        }
        let high = 1 << 40;
        for (request, expected) in [(0x5412, true), (0x541c, true), (0x5413, false), (0, false)] {
            assert_eq!(refused(libc::SYS_ioctl, [0, request]), expected, "{request:x}");
            assert_eq!(refused(libc::SYS_ioctl, [0x5412, request | high]), expected, "{request:x}");
        }
        for (family, expected) in [(40, true), (1, false), (2, false), (16, false)] {
            assert_eq!(refused(libc::SYS_socket, [family, 40]), expected, "{family}");
            assert_eq!(refused(libc::SYS_socket, [family | high, 0]), expected, "{family}");
        }
    }
}
