//! The end of a machine: the manager in order, then everybody, then the file systems, then the machine.

use std::io;
use std::time::{Duration, Instant};

/// How the machine ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It starts again.
    Reboot,
    /// It is switched off.
    PowerOff,
    /// It stands still.
    Halt,
}

/// What is to be ended, and how.
#[derive(Clone, Copy, Debug)]
pub struct Down {
    /// How the machine ends.
    pub ending: Ending,
    /// The manager, if one runs.
    pub manager: Option<i32>,
}

/// How long the others may take after SIGTERM, and again after SIGKILL.
const OTHERS: Duration = Duration::from_secs(2);
/// How often all file systems are tried: one can lie on another.
const UMOUNTS: usize = 8;

/// See the module's text. Returns only when this is no machine.
pub fn end(down: Down, machine: bool) -> io::Result<()> {
    // The manager ends jobs and services in order. The spawner may be a child of ours by now: it is the manager's to end.
    if let Some(manager) = down.manager {
        signal(manager, libc::SIGTERM);
        gone_within(super::MANAGER_STOP, Some(manager));
    }
    // All processes but this one.
    signal(-1, libc::SIGTERM);
    gone_within(OTHERS, None);
    signal(-1, libc::SIGKILL);
    gone_within(OTHERS, None);
    if !machine {
        return Ok(());
    }
    unmount_all();
    // SAFETY: no pointers.
    unsafe {
        libc::sync();
        libc::reboot(match down.ending {
            Ending::Reboot => libc::RB_AUTOBOOT,
            Ending::PowerOff => libc::RB_POWER_OFF,
            Ending::Halt => libc::RB_HALT_SYSTEM,
        });
    }
    Err(io::Error::last_os_error())
}

fn signal(pid: i32, signal: i32) {
    // SAFETY: no pointers. It fails when there is nobody, which is what is wanted.
    unsafe { libc::kill(pid, signal) };
}

/// Reaps until one child is gone, or all.
fn gone_within(limit: Duration, one: Option<i32>) {
    let deadline = Instant::now() + limit;
    while Instant::now() < deadline {
        // SAFETY: a null status is allowed.
        match unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) } {
            0 => std::thread::sleep(Duration::from_millis(5)),
            -1 => return,
            pid if Some(pid) == one => return,
            _ => {}
        }
    }
}

/// Unmounts what can be unmounted, the last first; what cannot is made read-only, if the machine is ours alone.
fn unmount_all() {
    for _ in 0..UMOUNTS {
        let mounts = mounts();
        let mut done = 0;
        for target in mounts.iter().rev() {
            let flags = rustix::mount::UnmountFlags::empty();
            done += usize::from(rustix::mount::unmount(target.as_slice(), flags).is_ok());
        }
        if done == 0 {
            break;
        }
    }
    // Read-only is the file system itself, not its mount: in a PID namespace it would be so for the whole host.
    if !is_first_namespace() {
        return;
    }
    for target in mounts() {
        let _ = rustix::mount::mount_remount(target.as_slice(), rustix::mount::MountFlags::RDONLY, "");
    }
}

/// Whether this is the PID 1 that the kernel started: its namespace has a number that never changes.
fn is_first_namespace() -> bool {
    const PROC_PID_INIT_INO: u32 = 0xEFFF_FFFC;
    std::fs::read_link("/proc/self/ns/pid")
        .is_ok_and(|link| link.as_os_str() == format!("pid:[{PROC_PID_INIT_INO}]").as_str())
}

/// Where something is mounted, in the order in which it was.
fn mounts() -> Vec<Vec<u8>> {
    let table = std::fs::read("/proc/self/mountinfo").unwrap_or_default();
    let target = |line: &[u8]| line.split(|&b| b == b' ').nth(4).map(unescape);
    table.split(|&b| b == b'\n').filter_map(target).filter(|target| target != b"/proc").collect()
}

/// `\040` and the like, as the kernel writes spaces.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, after)) = rest.split_first() {
        let octal = after
            .get(..3)
            .filter(|digits| first == b'\\' && digits.iter().all(|d| (b'0'..=b'7').contains(d)));
        match octal {
            Some(digits) => {
                plain.push(
                    digits.iter().fold(0u8, |value, digit| value.wrapping_mul(8).wrapping_add(digit - b'0')),
                );
                rest = &after[3..];
            }
            None => {
                plain.push(first);
                rest = after;
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_mounts_are_unescaped() {
        assert_eq!(unescape(br"/a\040b\134c"), b"/a b\\c");
        assert_eq!(unescape(br"/end\04"), br"/end\04");
    }
}
