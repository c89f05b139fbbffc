//! The spawner's process: one loop over signals, its socket, its manager, and containers that are being built. Its only other thread
//! is that of [`watch`].

mod children;
mod contained;
mod crowd;
mod errand;
mod finish;
pub mod inside;
mod reserve;
mod signals;
mod start;
mod tree;
mod watch;

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FlockOperation, flock};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, listen, socket_with, sockopt,
};

use super::protocol::{Event, Request, TAG_MAX, receive, send};
use children::Children;
use signals::{Signals, Wake};

/// Most requests of a manager that died: more than a socket holds.
const LEFT_MAX: usize = 4096;
/// Most requests before other things have their turn.
const TURN: usize = 64;
/// Most requests that are read before their turn.
const AHEAD: usize = 256;

/// Runs until it is told to finish, or until no manager came for `grace`.
///
/// Fails when another spawner has the socket.
pub fn serve(path: &Path, grace: Option<Duration>) -> io::Result<()> {
    let lock = File::create(path.with_extension("lock"))?;
    flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
    // What whoever started the node left open is no business of what is started here.
    // SAFETY: no pointers are passed, and nothing is closed before exec.
    unsafe {
        if libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0
            || libc::close_range(3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC as i32) != 0
        {
            return Err(io::Error::last_os_error());
        }
    }
    reserve::take();
    let mut server = Server {
        signals: Signals::catch()?,
        listener: Some(listen_at(path)?),
        manager: None,
        inbox: VecDeque::new(),
        outbox: VecDeque::new(),
        children: Children::new()?,
        alone_since: Instant::now(),
        is_signalled: false,
    };
    while server.turn(grace)? {}
    // Nobody may connect to what is about to end.
    std::fs::remove_file(path)?;
    // A manager ends what there is in order before it has this end. By a signal that was nobody's turn yet.
    if server.is_signalled {
        finish::ask_all();
    }
    finish::kill_all();
    Ok(())
}

fn listen_at(path: &Path) -> io::Result<OwnedFd> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let listener = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    bind(&listener, &SocketAddrUnix::new(path)?)?;
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    listen(&listener, 4)?;
    Ok(listener)
}

/// What woke the spawner.
#[derive(Clone, Copy)]
enum Source {
    Signals,
    Listener,
    Manager,
    /// Somebody may have too many processes.
    Crowd,
    /// One that is being built.
    Container(u64),
}

struct Server {
    signals: Signals,
    /// None inside of a container, where there is one manager, or nobody ever.
    listener: Option<OwnedFd>,
    manager: Option<OwnedFd>,
    /// What it has sent and is not done yet, so that what it takes back is never begun.
    inbox: VecDeque<(Request, Vec<OwnedFd>)>,
    /// What the manager has not been told yet: at most a few messages for each process.
    outbox: VecDeque<Event>,
    children: Children,
    alone_since: Instant,
    /// It was told to end by a signal.
    is_signalled: bool,
}

impl Server {
    /// Waits for something to happen and deals with it; false when it is time to end.
    fn turn(&mut self, grace: Option<Duration>) -> io::Result<bool> {
        let alone = grace.filter(|_| self.manager.is_none());
        let alone = alone.map(|grace| grace.saturating_sub(self.alone_since.elapsed()));
        if alone.is_some_and(|left| left.is_zero()) {
            return Ok(false);
        }
        let more = (!self.inbox.is_empty()).then_some(Duration::ZERO);
        let timeout = alone.into_iter().chain(self.children.next_look()).chain(more).min();
        if self.listener.is_none() && self.manager.is_none() {
            return Ok(false);
        }
        let wants = if self.outbox.is_empty() { PollFlags::IN } else { PollFlags::IN | PollFlags::OUT };
        let mut fds = vec![(Source::Signals, PollFd::new(&self.signals, PollFlags::IN))];
        fds.extend(self.listener.iter().map(|fd| (Source::Listener, PollFd::new(fd, PollFlags::IN))));
        fds.extend(self.manager.iter().map(|fd| (Source::Manager, PollFd::new(fd, wants))));
        fds.extend(
            self.children.watch().map(|fd| (Source::Crowd, PollFd::from_borrowed_fd(fd, PollFlags::IN))),
        );
        let building = self.children.building();
        fds.extend(
            building
                .map(|(slot, link)| (Source::Container(slot), PollFd::from_borrowed_fd(link, PollFlags::IN))),
        );
        let (sources, mut fds): (Vec<Source>, Vec<PollFd<'_>>) = fds.into_iter().unzip();
        let timeout = timeout
            .map(|left| Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() });
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
        let ready: Vec<Source> = sources
            .into_iter()
            .zip(&fds)
            .filter(|(_, fd)| !fd.revents().is_empty())
            .map(|(source, _)| source)
            .collect();
        drop(fds);
        let mut has_sent = more.is_some();
        for source in ready {
            match source {
                Source::Signals => match self.signals.read()? {
                    Wake::Stop => {
                        self.is_signalled = true;
                        return Ok(false);
                    }
                    Wake::Child => self.children.reap(&mut self.outbox),
                },
                Source::Listener => self.accept(),
                Source::Manager => has_sent = true,
                Source::Crowd => self.children.look(&mut self.outbox),
                Source::Container(slot) => self.children.hear(slot, &mut self.outbox),
            }
        }
        if has_sent && !self.serve_manager(TURN) {
            return Ok(false);
        }
        self.children.look_again(&mut self.outbox);
        self.flush();
        Ok(true)
    }

    /// A new manager replaces the old one, which is dead: only one holds the node's lock. What that one had sent is done
    /// first, as it may count on it; but not its order to end everything, which the new one knows nothing of.
    fn accept(&mut self) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let Some(listener) = &self.listener else { return };
        let Ok(manager) = accept_with(listener, flags) else { return };
        let own = rustix::process::geteuid();
        if sockopt::socket_peercred(&manager).is_ok_and(|peer| peer.uid == own) {
            self.serve_manager(LEFT_MAX);
            self.inbox.clear();
            self.outbox.clear();
            self.manager = Some(manager);
        }
    }

    /// Carries out up to so many requests; false when told to finish. Each start may take its time, and what its manager has
    /// killed meanwhile is not started after it.
    fn serve_manager(&mut self, most: usize) -> bool {
        for _ in 0..most {
            self.read_ahead();
            let Some((request, fds)) = self.inbox.pop_front() else { return true };
            let is_killed = |slot: &u64| self.inbox.iter().any(|(request, _)| request.kills(*slot));
            match (request.starts().filter(is_killed), request) {
                (_, Request::Finish) => return false,
                (Some(slot), _) => {
                    let step = "start what is killed already".into();
                    self.outbox.push_back(Event::Failed { slot, step, errno: libc::ECANCELED });
                }
                (None, request) => self.carry_out(request, fds),
            }
        }
        true
    }

    fn read_ahead(&mut self) {
        while let Some(manager) = self.manager.as_ref().filter(|_| self.inbox.len() < AHEAD) {
            match receive::<Request>(manager.as_fd()) {
                Ok(Some(received)) => self.inbox.push_back(received),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Ok(None) | Err(_) => self.lose_manager(),
            }
        }
    }

    fn carry_out(&mut self, request: Request, fds: Vec<OwnedFd>) {
        match request {
            Request::Spawn { slot, tag, process } if tag.len() <= TAG_MAX => {
                self.outbox.push_back(self.children.spawn(slot, tag, process, fds));
            }
            Request::Spawn { slot, .. } => {
                let step = "a name that is too long".into();
                self.outbox.push_back(Event::Failed { slot, step, errno: libc::ENAMETOOLONG });
            }
            Request::Contain { slot, tag, start } if tag.len() <= TAG_MAX => {
                self.outbox.extend(self.children.contain(slot, tag, start, fds));
            }
            Request::Contain { slot, .. } => {
                let step = "a name that is too long".into();
                self.outbox.push_back(Event::Failed { slot, step, errno: libc::ENAMETOOLONG });
            }
            // Out here nobody has errands: what they do is done by the manager itself.
            Request::Errand { slot, tag } if tag.len() <= TAG_MAX && self.listener.is_none() => {
                self.outbox.push_back(self.children.errand(slot, tag, fds));
            }
            Request::Errand { slot, .. } => {
                let step = "carry out errands outside of a container".into();
                self.outbox.push_back(Event::Failed { slot, step, errno: libc::EINVAL });
            }
            Request::Go { slot } => self.children.go(slot),
            Request::Hello { hello } => {
                self.outbox.clear();
                self.children.tell_held(hello, &mut self.outbox);
            }
            Request::Signal { slot, signal } => self.children.signal(slot, signal),
            Request::Forget { slot } => self.children.forget(slot),
            Request::Keep { slot } => self.children.keep(slot, fds),
            // At most one for each that was asked.
            Request::Ping => self.outbox.push_back(Event::Pong { orphans: self.children.orphans }),
            Request::Finish => {}
        }
    }

    fn lose_manager(&mut self) {
        self.manager = None;
        self.outbox.clear();
        self.alone_since = Instant::now();
    }

    /// Tells the manager as much as its socket takes.
    fn flush(&mut self) {
        while let (Some(manager), Some(event)) = (&self.manager, self.outbox.front()) {
            match send(manager.as_fd(), event, &self.children.ends_for(event)) {
                Ok(()) => drop(self.outbox.pop_front()),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => self.lose_manager(),
            }
        }
    }
}
