//! A mount that goes on when its daemon dies, with whoever keeps the kernel's end of its FUSE connection.
//!
//! As long as somebody has that open, requests wait. The next daemon is given it, has the kernel send again what the last one
//! had taken and not answered (FUSE_NOTIFY_RESEND, Linux 6.9), and answers from then on. Nothing else is handed over: inodes,
//! data spaces and offsets are those of the image.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::time::Instant;

use fuser::{Session, SessionACL};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::fuse_mode::session_config;
use super::mount::Mount;
use super::mountpoint;
use super::spec::{MountSpec, MountStatus};
use super::{Engine, MountError, Reserved};
use crate::source::open_sources_left;

/// Operation of the first request of a connection (linux/fuse.h).
const FUSE_INIT: u32 = 26;
/// The version of the protocol that is played; fuser speaks no newer one.
const FUSE_VERSION: [u32; 2] = [7, 40];
/// Bytes of its header, and of what comes with it.
const FUSE_IN_HEADER: u32 = 40;
const FUSE_INIT_IN: u32 = 64;
/// A notification, whose number is where answers have their error.
const FUSE_NOTIFY_RESEND: u32 = 7;
const FUSE_OUT_HEADER: u32 = 16;

impl Engine {
    /// The mount seen at `path`, what it was made of, and what is to be kept of it for [`resume`](Self::resume) in the daemon
    /// that comes next.
    pub fn keep(&self, path: &Path) -> Result<(MountStatus, MountSpec, OwnedFd), MountError> {
        let mount = self.mount_at(path)?;
        let device = mount.device().map_err(MountError::io("keeping the mount on", path))?;
        let status = mount.status(&self.cache_dir);
        let spec = MountSpec { mountpoint: status.mountpoint.clone(), ..mount.spec() };
        Ok((status, spec, device))
    }

    /// Goes on with a mount whose daemon has died. `spec` is what it was made of; what of its sources cannot be opened any more
    /// is asked no more.
    pub fn resume(&self, spec: &MountSpec, device: OwnedFd) -> Result<MountStatus, MountError> {
        let own = mountpoint::own_mount_at(&spec.mountpoint)?;
        let refused = |why| Err(MountError::NotResumed { mountpoint: own.mountpoint.clone(), why });
        if own.reference != spec.reference || own.cache != self.cache_dir {
            return refused("it is another flist's, or another cache's");
        }
        if self.live().iter().any(|mount| mount.location().device == own.device) {
            return refused("it is served already");
        }
        let _reserved = Reserved::new(&self.mounts, &own.mountpoint)?;
        let mountpoint = own.mountpoint.clone();
        let began = Instant::now();
        // One that is slow to open takes half of the time, and leaves the rest to the image.
        let (left, sources) = open_sources_left(&spec.sources, spec.open_by(began + spec.deadline / 2))?;
        let spec = MountSpec { sources: left, ..spec.clone() };
        self.serve(&spec, &mountpoint, (began, sources), |parts, opened_in| {
            Mount::resume(parts, opened_in, &own, device)
        })
    }
}

/// A session on a connection of which the kernel has had its greeting answered long ago.
pub(super) fn session<F: fuser::Filesystem>(
    edge: F,
    device: OwnedFd,
    acl: SessionACL,
) -> io::Result<Session<F>> {
    // fuser takes nothing for a session that does not begin with the greeting. So it is played to it on a socket, whose
    // place the device then takes.
    let (kernel, seat) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    rustix::io::write(&kernel, &greeting())?;
    let session = Session::from_fd(edge, seat, acl, session_config(acl))?;
    let seat = session.as_fd().as_raw_fd();
    // SAFETY: it stays an open descriptor, and the session's; nobody else knows it, and no thread reads it yet.
    if unsafe { libc::dup3(device.as_raw_fd(), seat, libc::O_CLOEXEC) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // Before anything is read: what the session itself has taken must not come again.
    rustix::io::write(&device, &resend())?;
    Ok(session)
}

/// FUSE_INIT of a kernel that can do everything; what it and the first daemon agreed on holds.
fn greeting() -> Vec<u8> {
    let unique = [1, 0];
    let header = [FUSE_IN_HEADER + FUSE_INIT_IN, FUSE_INIT].into_iter().chain(unique).chain([0; 6]);
    let (read_ahead, flags) = (128 << 10, [u32::MAX; 2]);
    let init = FUSE_VERSION.into_iter().chain([read_ahead]).chain(flags).chain([0; 11]);
    header.chain(init).flat_map(u32::to_ne_bytes).collect()
}

fn resend() -> Vec<u8> {
    [FUSE_OUT_HEADER, FUSE_NOTIFY_RESEND, 0, 0].into_iter().flat_map(u32::to_ne_bytes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_played_has_the_sizes_that_it_says() {
        let greeting = greeting();
        assert_eq!(greeting.len(), (FUSE_IN_HEADER + FUSE_INIT_IN) as usize);
        assert_eq!(greeting[..4], (greeting.len() as u32).to_ne_bytes());
        assert_eq!(resend().len(), FUSE_OUT_HEADER as usize);
    }

    #[test]
    fn a_session_goes_on_with_what_the_kernel_has_in_hand() {
        struct Nothing;
        impl fuser::Filesystem for Nothing {}
        // What stands for the device: the first that is written to it is the notification.
        let (kernel, device) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        let session = session(Nothing, device, SessionACL::Owner).unwrap();
        let mut bytes = [0; 64];
        let got = rustix::io::read(&kernel, &mut bytes).unwrap();
        assert_eq!(bytes[..got], resend());
        // And the session reads from it: what ends is no request.
        drop(kernel);
        assert!(session.run().is_err());
    }
}
