//! What the command may do: its capabilities, user and groups.

use rustix::io::{Errno, Result};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, remove_capability_from_bounding_set, set_capabilities,
    set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};

use super::plan::CommandPlan;

/// Docker's default capabilities (moby, `oci/caps/defaults.go`).
pub(super) const DEFAULT: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETFCAP)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::SYS_CHROOT)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::AUDIT_WRITE);

/// Files that a program may open before it asks for more, as usual, and when it does.
const FILES: [u64; 2] = [1024, 1 << 19];
/// Processes and threads of each user of the container: a bound for fork bombs also where the kernel's controller of
/// processes is not to be had. The user namespace makes the users its own.
const PROCESSES: u64 = 8192;

/// Bounds what one container can take of what all share. What is less already stays.
pub(super) fn limit_resources() -> Result<()> {
    let lower = |resource, soft: u64, hard: u64| {
        let now = getrlimit(resource);
        let maximum = now.maximum.map_or(hard, |maximum| maximum.min(hard));
        setrlimit(resource, Rlimit { current: Some(soft.min(maximum)), maximum: Some(maximum) })
    };
    lower(Resource::Nofile, FILES[0], FILES[1])?;
    lower(Resource::Nproc, PROCESSES, PROCESSES)
}

/// Takes away all capabilities but `kept`, also from programs that would bring their own.
pub(super) fn limit(kept: CapabilitySet) -> Result<()> {
    for number in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        if kept.contains(capability) {
            continue;
        }
        match remove_capability_from_bounding_set(capability) {
            Ok(()) => {}
            // The first number beyond what this kernel knows.
            Err(Errno::INVAL) => break,
            Err(errno) => return Err(errno),
        }
    }
    let owned = capabilities(None)?.permitted & kept;
    // Nothing is inheritable, as docker has it since CVE-2022-24769: programs with inheritable file
    // capabilities would gain them under any user. That empties the ambient set, too.
    let sets = CapabilitySets { effective: owned, permitted: owned, inheritable: CapabilitySet::empty() };
    set_capabilities(None, sets)
}

/// Becomes the user, for good: real, effective and saved ids.
pub(super) fn change_user(plan: &CommandPlan<'_>) -> Result<()> {
    set_thread_groups(&plan.groups)?;
    set_thread_res_gid(plan.gid, plan.gid, plan.gid)?;
    set_thread_res_uid(plan.uid, plan.uid, plan.uid)
}
