//! The system calls that a container may not make, by seccomp.
//!
//! Two filters, of which the stricter answer counts. The first refuses with EPERM what docker's default profile refuses:
//! what changes the kernel, its mounts or its keys, or reaches a large and rarely watched part of it. The second answers
//! ENOSYS to numbers that are newer than this list, so that programs take their older way, and to clone3, whose flags lie
//! where no filter can read them.
//!
//! Limits: the kernel kills programs of another architecture, 32-bit ones too. ptrace stays allowed, as docker's: it
//! reaches what this PID namespace shows.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use libc::c_long;
use rustix::io::{Errno, Result};
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

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
const NAMESPACES: [i32; 7] = [
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
];

/// What puts characters into the input of a terminal, which may be that of the caller's shell: TIOCSTI and TIOCLINUX.
const TYPING: [u32; 2] = [0x5412, 0x541c];

/// The last number of the table that all architectures share, as of Linux 6.10 (`mseal`).
const LAST: c_long = 462;
/// The first number of that table.
const SHARED_FIRST: c_long = 424;
/// The last number before it.
#[cfg(target_arch = "x86_64")]
const OWN_LAST: c_long = 334;
#[cfg(not(target_arch = "x86_64"))]
const OWN_LAST: c_long = 294;

/// The two filters; compiled once in a process, before it clones.
pub(crate) struct Filters([BpfProgram; 2]);

/// The filters, or why there are none: an architecture that the crate does not know.
pub(crate) fn filters() -> std::result::Result<&'static Filters, ContainerError> {
    static FILTERS: LazyLock<std::result::Result<Filters, BackendError>> = LazyLock::new(compile);
    FILTERS.as_ref().map_err(|error| ContainerError::Filter(error.to_string()))
}

fn compile() -> std::result::Result<Filters, BackendError> {
    let architecture = std::env::consts::ARCH.try_into()?;
    let errno = |errno: Errno| SeccompAction::Errno(errno.raw_os_error().cast_unsigned());

    let mut refused: BTreeMap<i64, Vec<SeccompRule>> =
        REFUSED.iter().map(|number| (*number, vec![])).collect();
    let namespaces = NAMESPACES.iter().map(|flag| {
        let flag = u64::from(flag.cast_unsigned());
        let set = SeccompCondition::new(0, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(flag), flag)?;
        SeccompRule::new(vec![set])
    });
    let typing = TYPING.iter().map(|request| {
        // The kernel looks at no more of it either.
        let is = SeccompCondition::new(1, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, u64::from(*request))?;
        SeccompRule::new(vec![is])
    });
    refused.insert(libc::SYS_ioctl, typing.collect::<std::result::Result<_, _>>()?);
    // Sockets to the hypervisor are in no namespace.
    let vsock = u64::from(libc::AF_VSOCK.cast_unsigned());
    let vsock = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, vsock)?;
    refused.insert(libc::SYS_socket, vec![SeccompRule::new(vec![vsock])?]);
    refused.insert(libc::SYS_clone, namespaces.collect::<std::result::Result<_, _>>()?);
    let refusing = SeccompFilter::new(refused, SeccompAction::Allow, errno(Errno::PERM), architecture)?;

    let mut known: BTreeMap<i64, Vec<SeccompRule>> =
        (0..=OWN_LAST).chain(SHARED_FIRST..=LAST).map(|number| (number, vec![])).collect();
    known.remove(&libc::SYS_clone3);
    let knowing = SeccompFilter::new(known, errno(Errno::NOSYS), SeccompAction::Allow, architecture)?;

    Ok(Filters([refusing.try_into()?, knowing.try_into()?]))
}

impl Filters {
    /// Puts this process and all that it starts under the filters for good. Needs no_new_privs.
    pub(crate) fn apply(&self) -> Result<()> {
        self.0.iter().try_for_each(|program| syscall::filter_calls(program))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filters_compile_and_fit_into_the_kernels_bound() {
        const BPF_MAXINSNS: usize = 4096;
        let filters = filters().unwrap_or_else(|error| panic!("{error}"));
        for program in &filters.0 {
            assert!(!program.is_empty() && program.len() <= BPF_MAXINSNS, "{}", program.len());
        }
    }
}
