//! What init tells the caller, in records of a fixed size.
//!
//! Record: kind (1 byte), step (1 byte), zero (2 bytes), errno (4 bytes, native order).

use rustix::io::Errno;

use crate::step::{Failure, Step};

pub(crate) const RECORD_SIZE: usize = 8;
const KIND_FAILED: u8 = 1;
const KIND_NOT_EXECUTED: u8 = 2;
const KIND_STOPPED: u8 = 3;
const KIND_BUILT: u8 = 4;

/// One message from inside the container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Report {
    /// A step failed, so nothing of the image has run.
    Failed(Failure),
    /// All is built; init waits for the caller.
    Built,
    /// All was ready, but the command could not be executed.
    NotExecuted(Errno),
    /// The command was stopped (Ctrl-Z), which is a matter for the caller's shell.
    Stopped,
}

impl Report {
    pub(crate) fn encode(self) -> [u8; RECORD_SIZE] {
        let (kind, step, errno) = match self {
            Report::Failed(failure) => (KIND_FAILED, failure.step as u8, failure.errno.raw_os_error()),
            Report::NotExecuted(errno) => (KIND_NOT_EXECUTED, 0, errno.raw_os_error()),
            Report::Stopped => (KIND_STOPPED, 0, 0),
            Report::Built => (KIND_BUILT, 0, 0),
        };
        let [a, b, c, d] = errno.to_ne_bytes();
        [kind, step, 0, 0, a, b, c, d]
    }

    pub(crate) fn decode(record: [u8; RECORD_SIZE]) -> rustix::io::Result<Report> {
        let [kind, step, _, _, errno @ ..] = record;
        let errno = || Errno::from_raw_os_error(i32::from_ne_bytes(errno));
        Ok(match (kind, Step::from_number(step)) {
            (KIND_FAILED, Some(step)) => Report::Failed(Failure { step, errno: errno() }),
            (KIND_NOT_EXECUTED, _) => Report::NotExecuted(errno()),
            (KIND_STOPPED, _) => Report::Stopped,
            (KIND_BUILT, _) => Report::Built,
            _ => return Err(Errno::BADMSG),
        })
    }
}
