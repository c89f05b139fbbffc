//! What the child tells the caller over the pipe, in records of a fixed size that need no allocation.
//!
//! Record: kind (1 byte), step (1 byte), zero (2 bytes), errno (4 bytes, native order). A write this small is
//! atomic.

use std::os::fd::AsFd;

use rustix::io::Errno;

use super::step::{Failure, Step};

const RECORD_SIZE: usize = 8;
const KIND_FAILED: u8 = 1;
const KIND_NOT_EXECUTED: u8 = 2;
const KIND_STOPPED: u8 = 3;

/// One message from inside the container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Report {
    /// A step failed, so the command has not started.
    Failed(Failure),
    /// All was ready, but the command could not be executed.
    NotExecuted(Errno),
    /// The command was stopped (Ctrl-Z), which is a matter for the caller's shell.
    Stopped,
}

impl Report {
    /// Sends the report. A failure is not told: it means that nobody is left who could be told.
    pub(super) fn send(self, pipe: impl AsFd) {
        let (kind, step, errno) = match self {
            Report::Failed(failure) => (KIND_FAILED, failure.step as u8, failure.errno.raw_os_error()),
            Report::NotExecuted(errno) => (KIND_NOT_EXECUTED, 0, errno.raw_os_error()),
            Report::Stopped => (KIND_STOPPED, 0, 0),
        };
        let [a, b, c, d] = errno.to_ne_bytes();
        let _ = rustix::io::write(pipe, &[kind, step, 0, 0, a, b, c, d]);
    }

    /// The next report, or none when all writers are gone.
    pub(super) fn read(pipe: impl AsFd) -> rustix::io::Result<Option<Report>> {
        let mut record = [0; RECORD_SIZE];
        let length = rustix::io::retry_on_intr(|| rustix::io::read(&pipe, &mut record))?;
        if length == 0 {
            return Ok(None);
        }
        let [kind, step, _, _, errno @ ..] = record;
        let errno = || Errno::from_raw_os_error(i32::from_ne_bytes(errno));
        let report = match (kind, Step::from_number(step)) {
            (KIND_FAILED, Some(step)) => Report::Failed(Failure { step, errno: errno() }),
            (KIND_NOT_EXECUTED, _) => Report::NotExecuted(errno()),
            (KIND_STOPPED, _) => Report::Stopped,
            _ => return Err(Errno::BADMSG),
        };
        Ok(Some(report))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_report_crosses_the_pipe_unchanged() {
        let (reader, writer) = rustix::pipe::pipe().expect("pipe");
        let failed = |step| Report::Failed(Failure { step, errno: Errno::NOSPC });
        let sent = [
            failed(Step::CloseDescriptors),
            failed(Step::UnblockSignals),
            Report::NotExecuted(Errno::NOENT),
            Report::Stopped,
        ];
        for report in sent {
            report.send(&writer);
            assert_eq!(Report::read(&reader), Ok(Some(report)));
        }
        drop(writer);
        assert_eq!(Report::read(&reader), Ok(None));
    }
}
