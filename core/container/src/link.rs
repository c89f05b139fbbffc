//! The link between the caller and init: packets on a socket, of a fixed size, that need no allocation.
//!
//! In: the mounts that only the caller can make, one a packet, in the order in which init wants them; then "go". Out: one
//! [`Report`] a packet. When either side is gone the other sees the end of it.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::{Errno, Result, retry_on_intr};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, send, sendmsg, socketpair,
};

use crate::report::{RECORD_SIZE, Report};

const MOUNT: u8 = b'm';
const GO: u8 = b'g';

/// Both ends: the caller's and init's.
pub(crate) fn pair() -> Result<(OwnedFd, OwnedFd)> {
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
}

/// Caller: hands over a mount. All of a container fit into the socket's buffer, so this does not wait for init.
pub(crate) fn send_mount(link: impl AsFd, mount: impl AsFd) -> Result<()> {
    let fds = [mount.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    ancillary.push(SendAncillaryMessage::ScmRights(&fds));
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    sendmsg(link, &[IoSlice::new(&[MOUNT])], &mut ancillary, flags).map(drop)
}

/// Caller: lets the container's own programs start.
pub(crate) fn send_go(link: impl AsFd) -> Result<()> {
    send(link, &[GO], SendFlags::NOSIGNAL | SendFlags::DONTWAIT).map(drop)
}

/// Caller: the next report; none at the end. `AGAIN` when there is none now and `flags` say not to wait.
pub(crate) fn receive_report(link: impl AsFd, flags: RecvFlags) -> Result<Option<Report>> {
    let mut record = [0; RECORD_SIZE];
    let mut receive = || retry_on_intr(|| rustix::net::recv(&link, &mut record[..], flags));
    let (_, length) = match receive() {
        // Init has ended without taking all that it was sent, which is told once, before what it has said.
        Err(Errno::CONNRESET) => receive()?,
        other => other?,
    };
    if length == 0 { Ok(None) } else { Report::decode(record).map(Some) }
}

/// Init: sends a report. A failure is not told: it means that nobody is left who could be told.
pub(crate) fn send_report(link: impl AsFd, report: Report) {
    let _ = send(link, &report.encode(), SendFlags::NOSIGNAL);
}

/// Init: the next mount.
pub(crate) fn receive_mount(link: impl AsFd) -> Result<OwnedFd> {
    let (kind, mount) = receive(link)?;
    if kind == MOUNT { mount.ok_or(Errno::BADMSG) } else { Err(Errno::BADMSG) }
}

/// Init: waits until the caller lets it go on.
pub(crate) fn wait_for_go(link: impl AsFd) -> Result<()> {
    match receive(link)? {
        (GO, None) => Ok(()),
        _ => Err(Errno::BADMSG),
    }
}

fn receive(link: impl AsFd) -> Result<(u8, Option<OwnedFd>)> {
    let mut kind = [0];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut buffers = [IoSliceMut::new(&mut kind)];
    let received = retry_on_intr(|| recvmsg(&link, &mut buffers, &mut ancillary, RecvFlags::CMSG_CLOEXEC))?;
    // The caller has died.
    if received.bytes == 0 {
        return Err(Errno::SRCH);
    }
    let mount = ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    Ok((kind[0], mount))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::step::{Failure, Step};

    #[test]
    fn every_report_crosses_the_link_unchanged() {
        let (reader, writer) = pair().expect("pair");
        let failed = |step| Report::Failed(Failure { step, errno: Errno::NOSPC });
        let sent = [
            failed(Step::CloseDescriptors),
            failed(Step::UnblockSignals),
            Report::Built,
            Report::NotExecuted(Errno::NOENT),
            Report::Stopped,
        ];
        for report in sent {
            send_report(&writer, report);
            assert_eq!(receive_report(&reader, RecvFlags::empty()), Ok(Some(report)));
        }
        assert_eq!(receive_report(&reader, RecvFlags::DONTWAIT), Err(Errno::AGAIN));
        drop(writer);
        assert_eq!(receive_report(&reader, RecvFlags::empty()), Ok(None));
    }

    #[test]
    fn the_last_words_of_an_init_that_did_not_listen_are_heard() {
        let (ours, theirs) = pair().expect("pair");
        send_go(&ours).expect("send");
        send_report(&theirs, Report::Stopped);
        drop(theirs);
        assert_eq!(receive_report(&ours, RecvFlags::empty()), Ok(Some(Report::Stopped)));
        assert_eq!(receive_report(&ours, RecvFlags::empty()), Ok(None));
    }

    #[test]
    fn mounts_come_in_order_then_go_and_a_dead_caller_is_noticed() {
        let (ours, theirs) = pair().expect("pair");
        let files = [tempfile::tempfile().expect("file"), tempfile::tempfile().expect("file")];
        files.iter().for_each(|file| send_mount(&ours, file).expect("send"));
        send_go(&ours).expect("send");
        for file in &files {
            let came = receive_mount(&theirs).expect("a mount");
            let inode = |fd: &dyn Fn() -> rustix::fs::Stat| fd().st_ino;
            assert_eq!(
                inode(&|| rustix::fs::fstat(&came).expect("stat")),
                inode(&|| rustix::fs::fstat(file).expect("stat"))
            );
        }
        assert_eq!(wait_for_go(&theirs), Ok(()));
        drop(ours);
        assert_eq!(wait_for_go(&theirs), Err(Errno::SRCH));
    }
}
