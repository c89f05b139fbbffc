//! Bytes of a conversation with a descriptor beside them (unix(7), SCM_RIGHTS).

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};

/// Reads what comes, and takes the first descriptor that comes along.
pub(super) struct Carrier<'a> {
    stream: &'a UnixStream,
    pub(super) brought: Option<OwnedFd>,
}

impl<'a> Carrier<'a> {
    pub(super) fn new(stream: &'a UnixStream) -> Self {
        Carrier { stream, brought: None }
    }
}

impl Read for Carrier<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC;
        let got = recvmsg(self.stream, &mut [IoSliceMut::new(buffer)], &mut ancillary, flags)?;
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                // The others are closed here.
                let mut descriptors = descriptors.into_iter();
                self.brought = self.brought.take().or_else(|| descriptors.next());
            }
        }
        Ok(got.bytes)
    }
}

/// Sends bytes, the descriptor with the first of them.
pub(super) fn send_with(mut stream: &UnixStream, bytes: &[u8], descriptor: BorrowedFd<'_>) -> io::Result<()> {
    let descriptors = [descriptor];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    // The space is made for it.
    let _ = ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
    let sent = sendmsg(stream, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL)?;
    stream.write_all(&bytes[sent..])
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Seek, SeekFrom};
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_descriptor_comes_with_the_bytes_and_another_does_not_take_its_place() {
        let (one, other) = UnixStream::pair().unwrap();
        let mut files = ["first", "second"].map(|content| {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(content.as_bytes()).unwrap();
            file.seek(SeekFrom::Start(0)).unwrap();
            file
        });
        for file in &mut files {
            send_with(&one, b"some bytes\n", file.as_fd()).unwrap();
        }
        drop(one);
        let mut carrier = Carrier::new(&other);
        let mut read = String::new();
        carrier.read_to_string(&mut read).unwrap();
        assert_eq!(read, "some bytes\nsome bytes\n");
        let mut said = String::new();
        File::from(carrier.brought.unwrap()).read_to_string(&mut said).unwrap();
        assert_eq!(said, "first");
    }
}
