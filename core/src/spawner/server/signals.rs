//! Signals as something to poll for.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

/// Why the spawner woke up.
pub enum Wake {
    /// A child ended.
    Child,
    /// It shall end.
    Stop,
}

/// SIGCHLD, SIGTERM and SIGINT, blocked and readable.
pub struct Signals(OwnedFd);

impl Signals {
    /// Blocks them in this process; children have to unblock them.
    pub fn catch() -> io::Result<Self> {
        // SAFETY: the set is a local that sigemptyset initialises; the descriptor is new and ours.
        unsafe {
            let mut set: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&mut set);
            for signal in [libc::SIGCHLD, libc::SIGTERM, libc::SIGINT] {
                libc::sigaddset(&mut set, signal);
            }
            if libc::sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()) != 0 {
                return Err(io::Error::last_os_error());
            }
            match libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) {
                -1 => Err(io::Error::last_os_error()),
                fd => Ok(Self(OwnedFd::from_raw_fd(fd))),
            }
        }
    }

    /// Reads one of those that came; those of children stand for any number of them.
    pub fn read(&self) -> io::Result<Wake> {
        let mut info = [0; size_of::<libc::signalfd_siginfo>()];
        match rustix::io::read(&self.0, &mut info) {
            Ok(_) | Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
        let number = u32::from_ne_bytes([info[0], info[1], info[2], info[3]]);
        Ok(if number == libc::SIGTERM as u32 || number == libc::SIGINT as u32 {
            Wake::Stop
        } else {
            Wake::Child
        })
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
