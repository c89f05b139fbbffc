//! Containers among the children: their first process is a copy of this one, which goes on as a spawner in there.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use g8_container::{Container, ContainerError, News, Spec};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::children::{Children, read_json};
use super::inside;
use super::start::Failure;
use crate::fault::{self, Fault};
use crate::spawner::protocol::{Event, Start};

impl Children {
    /// Begins to build a container from a memfd with its spec. An event only when that fails at once.
    pub fn contain(&mut self, slot: u64, tag: String, start: Start, fds: Vec<OwnedFd>) -> Option<Event> {
        match build(fds) {
            Ok((container, ends)) => {
                match start {
                    // It takes it when it is built. Its end tells when it cannot.
                    Start::AtOnce => drop(container.go()),
                    Start::WhenTold => {}
                }
                self.add(slot, tag, container.pid(), ends, Some(container));
                None
            }
            Err(failure) => Some(failure.event(slot)),
        }
    }

    /// The containers that are being built, with what to listen to.
    pub fn building(&self) -> impl Iterator<Item = (u64, BorrowedFd<'_>)> {
        let building = self.by_slot.iter().filter(|(_, child)| child.building);
        building.filter_map(|(slot, child)| Some((*slot, child.container.as_ref()?.link())))
    }

    /// Hears from a container that is being built. One that fails is forgotten when it is reaped.
    pub fn hear(&mut self, slot: u64, outbox: &mut VecDeque<Event>) {
        let Some(child) = self.by_slot.get_mut(&slot).filter(|child| child.building) else { return };
        let Some(container) = &child.container else { return };
        let failure = match container.news() {
            News::Building => return,
            News::Built => {
                child.building = false;
                if child.forgotten {
                    return;
                }
                outbox.push_back(Event::Spawned { slot, pid: child.pid, started_ms: child.started_ms });
                return;
            }
            News::Failed(error) => failure(error),
            News::Gone => Failure(
                "build the container: init was killed".into(),
                io::Error::from_raw_os_error(libc::ECHILD),
            ),
        };
        container.kill();
        // Nothing more is told of it, and nothing more is heard.
        if !child.forgotten {
            child.forgotten = true;
            outbox.push_back(failure.event(slot));
        }
    }

    /// Lets programs start in a container.
    pub fn go(&self, slot: u64) {
        let Some(child) = self.by_slot.get(&slot) else { return };
        if let Some(container) = child.container.as_ref().filter(|_| !child.building)
            && container.go().is_err()
        {
            // Its end tells.
            container.kill();
        }
    }
}

fn build(fds: Vec<OwnedFd>) -> Result<(Container, [OwnedFd; 2]), Failure> {
    let spec = fds.into_iter().next().ok_or(io::ErrorKind::InvalidInput.into()).and_then(read_json::<Spec>);
    let spec = spec.map_err(|e| Failure("read what to build".into(), e))?;
    wanted(fault::step("make a socket into the container"))?;
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .map_err(|e| Failure("make a socket into the container".into(), e.into()))?;
    wanted(fault::step("clone its first process"))?;
    let container =
        Container::start(&spec, theirs.as_fd(), || inside::run(theirs.as_fd())).map_err(failure)?;
    wanted(fault::step("open its network namespace"))?;
    let network = container.network().map_err(|e| Failure("open the network namespace".into(), e))?;
    Ok((container, [ours, network]))
}

/// A step that fails as a test wants it.
fn wanted(step: Result<(), Fault>) -> Result<(), Failure> {
    step.map_err(|fault| Failure(fault.what().into(), io::Error::from_raw_os_error(libc::ECANCELED)))
}

/// The words that follow "cannot", and the errno.
fn failure(error: ContainerError) -> Failure {
    match error {
        ContainerError::Step { step, source } => Failure(step.into(), source),
        ContainerError::Volume { path, source } => Failure(format!("show {} inside", path.display()), source),
        other => Failure(format!("build the container: {other}"), io::Error::from_raw_os_error(libc::EINVAL)),
    }
}
