//! What a process of a job prints, on its way to the log, the streams and the result: every line once, also when the
//! manager is killed on the way.
//!
//! Most processes end soon: for a moment nothing is read, and then all is taken out of the pipe with a look that leaves it
//! there until the job is answered. What runs longer is read as it comes, through a [`Spool`]. The next manager
//! begins with what either holds, and knows from the log which lines are there already.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::{Duration, Instant, sleep_until};

use super::outcome::Outcome;
use super::spool::{Spool, State};
use super::terminal;
use super::{Job, Jobs, Usage};
use crate::log::{CHUNK, Place, Record, Room, now_ms};
use crate::process::{Aggregation, Message, Messages, Metric, level};
use crate::spawner::{Child, Handle};
use crate::wire;

/// How long a process is left alone: most have ended then.
const MOMENT: Duration = Duration::from_millis(20);
/// Most bytes that are read of what lies in a pipe when the process has ended: more than any pipe holds by default.
const REST: usize = 1 << 20;

/// See the module's text.
pub struct Output<'a> {
    jobs: &'a Jobs,
    job: &'a Job,
    source: Arc<str>,
    handle: Handle,
    pipes: [Pipe; 2],
    spool: Option<Spool>,
    /// What all that was read has come to.
    state: State,
    /// Up to here an earlier manager has logged each stream.
    logged: [u64; 2],
    begins: Instant,
    live: bool,
    /// What was read last, on its way to the log.
    records: Vec<Record>,
    terminal: Option<Terminal>,
}

/// What there is besides when the first stream is a terminal.
struct Terminal {
    /// Bytes of a letter whose others have not come.
    begun: Vec<u8>,
    /// What was read last, as it is.
    shown: String,
}

enum Pipe {
    Still(OwnedFd),
    Live(AsyncFd<OwnedFd>),
    Ended,
}

impl<'a> Output<'a> {
    /// Of a process; what an earlier manager had read of it is read again.
    pub async fn new(jobs: &'a Jobs, job: &'a Job, child: &mut Child) -> Self {
        let ends = child.output.take().map(|ends| ends.map(Pipe::Still));
        let messages = [Messages::new(level::STDOUT), Messages::new(level::STDERR)];
        let mut output = Self {
            jobs,
            job,
            source: job.source(),
            handle: child.handle(),
            pipes: ends.unwrap_or([Pipe::Ended, Pipe::Ended]),
            spool: None,
            state: State { messages, tails: Default::default(), answer: None },
            logged: child.logged,
            begins: Instant::now() + MOMENT,
            live: false,
            records: Vec::new(),
            terminal: None,
        };
        if child.on_terminal {
            output.terminal = Some(output.open_terminal());
            output.begins = Instant::now();
        }
        match child.kept.take().map(Spool::open) {
            Some(Ok((spool, state, rests))) => {
                output.spool = Some(spool);
                output.state = state.unwrap_or(output.state);
                for (which, rest) in rests.iter().enumerate() {
                    output.hear_all(which, rest).await;
                }
            }
            Some(Err(e)) => tracing::error!("what {} printed before is lost: {e}", output.source),
            None => {}
        }
        output
    }

    /// Whether there is, or will be, something to read.
    pub fn is_open(&self) -> bool {
        self.pipes.iter().any(|pipe| !matches!(pipe, Pipe::Ended))
    }

    /// Waits for something to read, and reads it. Nothing is lost when it is given up on the way.
    pub async fn pass(&mut self) {
        if !self.live {
            sleep_until(self.begins).await;
            self.pipes.iter_mut().for_each(|pipe| pipe.watch(&self.source));
            self.live = true;
        }
        let [out, err] = &self.pipes;
        let which = tokio::select! {
            () = out.readable() => 0,
            () = err.readable() => 1,
        };
        match &self.spool {
            None if self.terminal.is_some() => {}
            None => self.spool = self.spool().await,
            Some(spool) if spool.is_long() => self.fold().await,
            Some(_) => {}
        }
        let room = self.jobs.parts.logs.room().await;
        let (pipe, spool) = (&self.pipes[which], &mut self.spool);
        let read = match pipe {
            Pipe::Live(pipe) => pipe.try_io(Interest::READABLE, |fd| read(which, fd.as_fd(), spool)),
            Pipe::Still(_) | Pipe::Ended => return,
        };
        match read {
            Ok(bytes) if bytes.is_empty() => self.end(which),
            Ok(bytes) => self.hear(which, &bytes),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            // So a terminal says that nobody has it any more.
            Err(e) if e.raw_os_error() == Some(libc::EIO) && self.terminal.is_some() => self.end(which),
            Err(e) => {
                tracing::warn!("cannot read the output of {}: {e}", self.source);
                self.end(which);
            }
        }
        self.log(room);
    }

    /// A spool that the spawner has, too. Without one, lines can be lost with the manager, and nothing else.
    async fn spool(&self) -> Option<Spool> {
        let spool = Spool::new().and_then(|spool| Ok((spool.descriptors()?, spool)));
        match spool {
            Ok((descriptors, spool)) => self.handle.keep(descriptors).await.then_some(spool),
            Err(e) => {
                tracing::warn!("what {} prints is not kept for another manager: {e}", self.source);
                None
            }
        }
    }

    async fn fold(&mut self) {
        // What is folded is not there to be logged again.
        self.jobs.parts.logs.flush().await;
        if let Some(Err(e)) = self.spool.as_mut().map(|spool| spool.fold(&self.state)) {
            tracing::warn!("what {} prints is not kept for another manager: {e}", self.source);
            self.spool = None;
        }
    }

    fn log(&mut self, room: Room) {
        let shown = self.terminal.as_mut().map(|terminal| std::mem::take(&mut terminal.shown));
        let (time, source, level) = (now_ms(), self.source.clone(), level::STDOUT);
        let shown = shown.map(|text| Record { time, source, level, text: text.into(), place: None });
        self.job.hear(&self.jobs.parts, shown, std::mem::take(&mut self.records), room);
    }

    fn open_terminal(&self) -> Terminal {
        let ours = self.pipes[0].fd().map(|fd| fd.try_clone_to_owned());
        let fed = match ours {
            Some(ours) => ours.and_then(|ours| {
                rustix::io::ioctl_fionbio(&ours, true)?;
                terminal::feed(&self.jobs.parts.access, self.job.keys.input(), ours).map(Some)
            }),
            None => Ok(None),
        };
        let input = fed.unwrap_or_else(|e| {
            tracing::error!("nothing can be typed for {}: {e}", self.source);
            None
        });
        self.job.control.asked.lock().input = input;
        Terminal { begun: Vec::new(), shown: String::new() }
    }

    /// Says what the processes of the job used at a time.
    pub async fn tell(&mut self, time: u64, usage: &Usage) {
        let Usage { cpu_time, rss, read, written, .. } = usage;
        let values = [
            ("job.cpu", cpu_time * 100.0, Aggregation::Difference),
            ("job.rss", *rss as f64, Aggregation::Average),
            ("job.read", *read as f64, Aggregation::Difference),
            ("job.written", *written as f64, Aggregation::Difference),
        ];
        for (key, value, aggregation) in values {
            let tags = [("id".to_string(), self.job.keys.name().to_string())].into();
            let metric = Metric { key: key.into(), value, aggregation, tags };
            let (source, level) = (self.source.clone(), level::METRIC);
            let text = metric.to_string().into();
            self.records.push(Record { time, source, level, text, place: None });
            self.jobs.gather(self.job, &self.source, time, metric);
        }
        let room = self.jobs.parts.logs.room().await;
        self.log(room);
    }

    /// Takes bytes of any number.
    async fn hear_all(&mut self, which: usize, bytes: &[u8]) {
        for piece in bytes.chunks(CHUNK) {
            let room = self.jobs.parts.logs.room().await;
            self.hear(which, piece);
            self.log(room);
        }
    }

    fn hear(&mut self, which: usize, bytes: &[u8]) {
        if let Some(terminal) = &mut self.terminal {
            terminal.show(bytes);
        }
        let mut messages = std::mem::take(&mut self.state.messages[which]);
        messages.feed(bytes, &mut |message| self.take(which, message));
        self.state.messages[which] = messages;
    }

    fn end(&mut self, which: usize) {
        self.pipes[which] = Pipe::Ended;
        let mut messages = std::mem::take(&mut self.state.messages[which]);
        messages.finish(&mut |message| self.take(which, message));
        self.state.messages[which] = messages;
    }

    fn take(&mut self, which: usize, message: Message) {
        if message.end > self.logged[which] {
            if message.level == level::METRIC
                && let Some(metric) = Metric::parse(&message.text)
            {
                self.jobs.gather(self.job, &self.source, now_ms(), metric);
            }
            let (time, source, level) = (now_ms(), self.source.clone(), message.level);
            let place = Some([Place::Out, Place::Err][which](message.end));
            let text = message.text.as_str().into();
            self.records.push(Record { time, source, level, text, place });
        }
        match message.level {
            level::STDOUT => self.state.tails[0].put(message.text),
            level::STDERR => self.state.tails[1].put(message.text),
            other if level::is_result(other) => self.state.answer = Some(message),
            _ => {}
        }
    }

    /// Takes what lies in the pipes of a process that has ended. What a background process writes later is not this
    /// job's any more.
    pub async fn finish(mut self) -> Outcome {
        for which in 0..2 {
            let mut total = 0;
            while let Some(pipe) = self.pipes[which].fd()
                && total <= REST
            {
                // What can be read again and again, until there is nothing.
                let spooled = self.spool.is_some() || self.terminal.is_some();
                // tokio believes a pipe empty until it heard otherwise. What a process printed is there when its end is known.
                let rest = match spooled {
                    true => read(which, pipe, &mut self.spool),
                    false => self.jobs.peek(pipe),
                };
                let rest = rest.unwrap_or_else(|e| {
                    if e.kind() != io::ErrorKind::WouldBlock && self.terminal.is_none() {
                        tracing::error!("the last output of {} is lost: {e}", self.source);
                    }
                    Vec::new()
                });
                total += rest.len();
                self.hear_all(which, &rest).await;
                if rest.is_empty() || !spooled {
                    break;
                }
            }
            if self.pipes[which].fd().is_some() {
                self.end(which);
            }
        }
        if !self.records.is_empty() {
            let room = self.jobs.parts.logs.room().await;
            self.log(room);
        }
        let State { tails, answer, .. } = self.state;
        let (level, data) = answer.map_or((0, String::new()), |message| (message.level, message.text));
        let streams = [tails[0].text(), tails[1].text()];
        Outcome { level, data, streams, ..Outcome::bare(wire::State::Success, 0) }
    }
}

impl Terminal {
    /// Adds bytes to what is shown. A letter that is not whole waits for its rest.
    fn show(&mut self, bytes: &[u8]) {
        self.begun.extend_from_slice(bytes);
        for chunk in self.begun.utf8_chunks() {
            self.shown.push_str(chunk.valid());
            if !chunk.invalid().is_empty() {
                self.shown.push('\u{fffd}');
            }
        }
        // The last one may be no error, but the beginning of something.
        let begun = match std::str::from_utf8(&self.begun) {
            Err(e) if self.begun.len() - e.valid_up_to() < 4 && e.error_len().is_none() => e.valid_up_to(),
            Ok(_) | Err(_) => self.begun.len(),
        };
        if begun < self.begun.len() {
            self.shown.pop();
        }
        self.begun.drain(..begun);
    }
}

/// Reads once; nothing at the end.
fn read(which: usize, pipe: BorrowedFd<'_>, spool: &mut Option<Spool>) -> io::Result<Vec<u8>> {
    if let Some(spool) = spool {
        return spool.take(which, pipe);
    }
    let mut bytes = vec![0; CHUNK];
    let count = rustix::io::read(pipe, &mut bytes)?;
    bytes.truncate(count);
    Ok(bytes)
}

impl Pipe {
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Still(fd) => Some(fd.as_fd()),
            Self::Live(fd) => Some(fd.get_ref().as_fd()),
            Self::Ended => None,
        }
    }

    /// Has it say when there is something to read.
    fn watch(&mut self, source: &str) {
        let Self::Still(_) = self else { return };
        let Self::Still(fd) = std::mem::replace(self, Self::Ended) else { return };
        let watched = rustix::io::ioctl_fionbio(&fd, true).map_err(io::Error::from);
        match watched.and_then(|()| crate::process::watch(fd)) {
            Ok(fd) => *self = Self::Live(fd),
            Err(e) => tracing::error!("the output of {source} is lost: {e}"),
        }
    }

    async fn readable(&self) {
        match self {
            // An error shows when it is read.
            Self::Live(fd) => drop(fd.readable().await),
            Self::Still(_) | Self::Ended => std::future::pending().await,
        }
    }
}
