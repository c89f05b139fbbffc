//! Finding the daemon of a cache, or starting it.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::{self, BufReader, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};

use super::caller::Caller;
use super::carrier::Carrier;
use super::protocol::{Kept, MountRequest, Refusal, Reply, Request, receive_reply, send_along};
use super::{LOG, SOCKET};
use crate::engine::MountStatus;

/// How long to go on when a daemon ends just as it is asked.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long a daemon that starts may take to serve: it waits for one that ends, and may have a database to repair.
const READY: Duration = Duration::from_secs(30);
/// Longest that it may say instead.
const MAX_SAID: u64 = 64 << 10;
/// The log is begun anew when it has grown past this.
const MAX_LOG: u64 = 4 << 20;

/// Why the daemon did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody serves this cache.
    #[error("no daemon serves the cache {0}")]
    NotRunning(PathBuf),
    /// The daemon belongs to somebody else.
    #[error("the daemon of the cache {0} belongs to another user: use a --cache of your own")]
    Foreign(PathBuf),
    /// It could not be started.
    #[error("starting the daemon of the cache {0}: {1}")]
    Start(PathBuf, String),
    /// It was asked and could not.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It did not answer.
    #[error("the daemon of the cache {0} did not answer within {1:?}: see daemon.log there")]
    Silent(PathBuf, Duration),
    /// The conversation broke.
    #[error("talking to the daemon of the cache {0}")]
    Io(PathBuf, #[source] io::Error),
    /// It kept ending as it was asked.
    #[error("the daemon of the cache {0} ends again and again: see {1}")]
    Restless(PathBuf, PathBuf),
}

/// How a daemon is started: a program that serves `cache`, prints `ready` on its stdout when it does, else why not.
#[derive(Clone, Debug)]
pub struct Starter {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
}

/// A mount that outlives its daemon: as long as this is there, reads wait for a daemon that is given it
/// ([`Client::resume`]); they fail when it is dropped and none was.
#[derive(Debug)]
pub struct Keepsake {
    request: MountRequest,
    /// The kernel's end of its FUSE connection.
    device: OwnedFd,
}

/// The daemon of one cache.
#[derive(Clone, Debug)]
pub struct Client {
    cache: PathBuf,
    starter: Option<Starter>,
    /// User that the daemon must run as.
    owner: u32,
}

impl Client {
    /// Without a starter, only a daemon that runs is asked.
    pub fn new(cache: &Path, starter: Option<Starter>) -> Self {
        let owner = rustix::process::geteuid().as_raw();
        Client { cache: cache.to_owned(), starter, owner }
    }

    /// The folder of the cache.
    pub fn cache(&self) -> &Path {
        &self.cache
    }

    /// A daemon of this user, as the kernel says of one of its mounts, and of no other.
    pub fn owned_by(self, owner: u32) -> Self {
        Client { owner, ..self }
    }

    /// Asks, and returns the reply and the connection, which holds a mount that was made with `hold`.
    pub fn ask(&self, request: &Request, limit: Duration) -> Result<(Reply, UnixStream), ClientError> {
        let (reply, stream, _) = self.ask_along(request, None, limit)?;
        Ok((reply, stream))
    }

    /// The mount at a place, and what goes on with it when this daemon has died. None when it answers something else.
    pub fn keep(
        &self,
        mountpoint: &Path,
        limit: Duration,
    ) -> Result<Option<(MountStatus, Keepsake)>, ClientError> {
        let request = Request::Keep { mountpoint: mountpoint.to_owned() };
        match self.ask_along(&request, None, limit)? {
            (Reply::Kept(kept), _, Some(device)) => {
                let Kept { status, request } = *kept;
                Ok(Some((status, Keepsake { request, device })))
            }
            _ => Ok(None),
        }
    }

    /// Has the next daemon go on with a mount whose daemon has died. None when it answers something else.
    pub fn resume(&self, kept: &Keepsake, limit: Duration) -> Result<Option<MountStatus>, ClientError> {
        let request = Request::Resume(kept.request.clone());
        match self.ask_along(&request, Some(kept.device.as_fd()), limit)? {
            (Reply::Mounted(status), ..) => Ok(Some(*status)),
            _ => Ok(None),
        }
    }

    fn ask_along(
        &self,
        request: &Request,
        descriptor: Option<BorrowedFd<'_>>,
        limit: Duration,
    ) -> Result<(Reply, UnixStream, Option<OwnedFd>), ClientError> {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            let stream = match connect(&self.cache) {
                Ok(stream) => stream,
                Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                    self.start()?;
                    continue;
                }
                Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                    return Err(ClientError::Foreign(self.cache.clone()));
                }
                Err(e) => return Err(ClientError::Io(self.cache.clone(), e)),
            };
            match self.converse(&stream, request, descriptor, limit) {
                Ok((Some(Reply::Refused(refusal)), _)) => return Err(refusal.into()),
                // It ended between accepting and answering: ask the next one.
                Ok((None, _)) => {}
                Ok((Some(reply), brought)) => return Ok((reply, stream, brought)),
                Err(ClientError::Io(_, e))
                    if matches!(e.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) => {}
                Err(e) => return Err(e),
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Err(ClientError::Restless(self.cache.clone(), self.cache.join(LOG)))
    }

    fn converse(
        &self,
        stream: &UnixStream,
        request: &Request,
        descriptor: Option<BorrowedFd<'_>>,
        limit: Duration,
    ) -> Result<(Option<Reply>, Option<OwnedFd>), ClientError> {
        let io_error = |e| ClientError::Io(self.cache.clone(), e);
        if Caller::at(stream).map_err(io_error)?.uid != self.owner {
            return Err(ClientError::Foreign(self.cache.clone()));
        }
        stream.set_write_timeout(Some(limit)).map_err(io_error)?;
        send_along(stream, request, descriptor).map_err(io_error)?;
        let mut until = Until { carrier: Carrier::new(stream), stream, end: Instant::now() + limit };
        let reply = receive_reply(BufReader::new(&mut until)).map_err(|e| match e.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                ClientError::Silent(self.cache.clone(), limit)
            }
            _ => io_error(e),
        });
        Ok((reply?, until.carrier.brought))
    }

    fn start(&self) -> Result<(), ClientError> {
        let Some(starter) = &self.starter else { return Err(ClientError::NotRunning(self.cache.clone())) };
        let failed = |text: String| ClientError::Start(self.cache.clone(), text);
        let run = || -> io::Result<String> {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.cache)?;
            let mut child = Command::new(&starter.program)
                .args(&starter.arguments)
                .current_dir("/")
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(open_log(&self.cache.join(LOG))?)
                .spawn()?;
            // It closes its stdout once it serves, or ends.
            let mut said = String::new();
            let stdout = child.stdout.take().map(|stdout| Spoken { stdout, end: Instant::now() + READY });
            let heard = stdout.map_or(Ok(0), |stdout| stdout.take(MAX_SAID).read_to_string(&mut said));
            if heard.is_ok() && said.trim() != "ready" {
                child.wait()?;
                return Ok(said);
            }
            // A client that lives on collects the daemon when that ends, long after. One that is late may serve yet.
            std::thread::Builder::new().name("flist-daemon".to_owned()).spawn(move || child.wait())?;
            heard.map(|_| said)
        };
        match run() {
            Ok(said) if said.trim() == "ready" => Ok(()),
            Ok(said) if said.trim().is_empty() => {
                Err(failed(format!("it ended without a word: see {}", self.cache.join(LOG).display())))
            }
            Ok(said) => Err(failed(said.trim().to_owned())),
            Err(e) if e.kind() == io::ErrorKind::TimedOut => Err(failed(format!(
                "it does not serve after {READY:?}: try again, and see {}",
                self.cache.join(LOG).display()
            ))),
            Err(e) => Err(failed(format!("{e}; choose another folder with --cache"))),
        }
    }
}

/// What a daemon says while it starts, until a point in time.
struct Spoken {
    stdout: ChildStdout,
    end: Instant,
}

impl Read for Spoken {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.end.saturating_duration_since(Instant::now());
        let limit = Timespec::try_from(left).map_err(io::Error::other)?;
        match poll(&mut [PollFd::new(&self.stdout, PollFlags::IN)], Some(&limit))? {
            0 => Err(io::ErrorKind::TimedOut.into()),
            _ => self.stdout.read(buffer),
        }
    }
}

/// A stream that ends at a point in time, however its bytes drip.
struct Until<'a> {
    carrier: Carrier<'a>,
    stream: &'a UnixStream,
    end: Instant,
}

impl Read for Until<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.stream.set_read_timeout(Some(left))?;
        self.carrier.read(buffer)
    }
}

fn open_log(path: &Path) -> io::Result<std::fs::File> {
    let mut options = OpenOptions::new();
    options.create(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
    let too_long = std::fs::metadata(path).is_ok_and(|m| m.len() > MAX_LOG);
    if too_long {
        options.write(true).truncate(true)
    } else {
        options.append(true)
    };
    options.open(path)
}

/// Connects to the daemon of a cache.
pub(super) fn connect(cache: &Path) -> io::Result<UnixStream> {
    let (socket, _folder) = short_path(cache, SOCKET)?;
    UnixStream::connect(socket)
}

/// A short path of the socket `name` in `folder`, which leads there for as long as the descriptor is open: a socket address
/// holds just 107 bytes (unix(7)).
pub(crate) fn short_path(folder: &Path, name: &str) -> io::Result<(PathBuf, OwnedFd)> {
    let fd = rustix::fs::open(folder, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    Ok((PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd())).join(name), fd))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_that_starts_is_heard_to_its_end_or_to_the_end_of_our_patience() {
        let hear = |script: &str, patience: Duration| {
            let mut child = Command::new("sh").args(["-c", script]).stdout(Stdio::piped()).spawn().unwrap();
            let stdout = child.stdout.take().unwrap();
            let mut said = String::new();
            let heard = Spoken { stdout, end: Instant::now() + patience }.read_to_string(&mut said);
            // It may have ended by itself.
            let _ = child.kill();
            child.wait().unwrap();
            heard.map(|_| said).map_err(|error| error.kind())
        };
        assert_eq!(hear("printf rea; sleep 0.1; printf dy", Duration::from_secs(60)), Ok("ready".into()));
        let silent = hear("printf rea; exec sleep 60", Duration::from_millis(100));
        assert_eq!(silent, Err(io::ErrorKind::TimedOut));
    }
}
