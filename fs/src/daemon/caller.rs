//! Who is at the other end of a socket, as the kernel says (unix(7)).

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use super::protocol::Refusal;

/// A process that has connected, or that listens.
#[derive(Clone, Copy, Debug)]
pub(super) struct Caller {
    /// Its number, which is 0 when it is outside our PID namespace: rustix has no room for that.
    pub(super) pid: i32,
    /// Its user.
    pub(super) uid: u32,
}

impl Caller {
    /// The one at the other end of `socket`.
    pub(super) fn at(socket: impl AsFd) -> io::Result<Caller> {
        let mut said = libc::ucred { pid: 0, uid: libc::uid_t::MAX, gid: libc::gid_t::MAX };
        let mut len = size_of::<libc::ucred>() as libc::socklen_t;
        let socket = socket.as_fd().as_raw_fd();
        // SAFETY: the kernel writes at most `len` bytes to `said`, of which every pattern is a value.
        let outcome = unsafe {
            libc::getsockopt(
                socket,
                libc::SOL_SOCKET,
                libc::SO_PEERCRED,
                (&raw mut said).cast(),
                &raw mut len,
            )
        };
        match outcome {
            0 => Ok(Caller { pid: said.pid, uid: said.uid }),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Refuses one in another mount namespace, who would not see what is mounted here, or does not mean the same by a path;
    /// and one of whom that cannot be told.
    pub(super) fn shares_mounts(self) -> Result<(), Refusal> {
        let refused = |message: String| Err(Refusal { message });
        if self.pid == 0 {
            return refused(
                "the daemon of this cache runs in another PID namespace: use another --cache here".into(),
            );
        }
        let of = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/mnt"));
        match (of("self"), of(&self.pid.to_string())) {
            (Ok(ours), Ok(theirs)) if ours == theirs => Ok(()),
            (Ok(_), Ok(_)) => refused(
                "the daemon of this cache runs in another mount namespace: use another --cache here".into(),
            ),
            // It went, and what it asked for goes the same way.
            (Ok(_), Err(_)) if is_gone(self.pid) => Ok(()),
            (Ok(_), Err(error)) => refused(format!(
                "the daemon of this cache cannot see which mount namespace process {} is in ({error}): use the \
                 user of the daemon, or another --cache",
                self.pid
            )),
            (Err(error), _) => refused(format!(
                "the daemon of this cache cannot see its own mount namespace ({error}): is /proc mounted?"
            )),
        }
    }
}

/// Whether no process has this number. /proc does not tell: mounted with `hidepid=`, it has no processes of others.
fn is_gone(pid: i32) -> bool {
    let pid = rustix::process::Pid::from_raw(pid);
    pid.is_some_and(|pid| rustix::process::test_kill_process(pid) == Err(rustix::io::Errno::SRCH))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn who_shares_our_mounts_may_ask_and_who_cannot_be_seen_may_not() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let caller = Caller::at(&ours).unwrap();
        assert_eq!(caller.pid as u32, std::process::id());
        assert_eq!(caller.uid, rustix::process::geteuid().as_raw());
        caller.shares_mounts().unwrap();
        let refused = Caller { pid: 0, ..caller }.shares_mounts().unwrap_err();
        assert!(refused.message.contains("PID namespace"), "{refused}");
        Caller { pid: i32::MAX, ..caller }.shares_mounts().expect("it is gone");
    }
}
