//! What the command may do: its capabilities, user and groups.

use rustix::io::{Errno, Result};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, remove_capability_from_bounding_set, set_capabilities,
    set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};

use super::plan::Plan;

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
pub(super) fn change_user(plan: &Plan<'_>) -> Result<()> {
    set_thread_groups(&plan.groups)?;
    set_thread_res_gid(plan.gid, plan.gid, plan.gid)?;
    set_thread_res_uid(plan.uid, plan.uid, plan.uid)
}
