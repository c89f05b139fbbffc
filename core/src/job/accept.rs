//! From bytes out of a queue to a job that runs, or to the answer why not.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures::FutureExt;
use g8_fs::log_quota::LogQuota;
use parking_lot::Mutex;

use super::adopted::Adopted;
use super::outcome::{Outcome, encode, shown};
use super::run::{First, Late, interrupted};
use super::table::Control;
use super::{Job, Jobs};
use crate::command::{self, CommandError, Entry, Role, Run};
use crate::config::Limits;
use crate::context::{Caller, Context, Node};
use crate::log::now_ms;
use crate::queue::{Note, Ticket};
use crate::wire::{Envelope, EnvelopeError, JobResult, Keys, State};

/// Commands of administrators that are accepted above the bound of all: when lesser ones have used it up, they must be able to
/// list and to kill.
const ADMIN_ROOM: usize = 256;
/// Most bytes of a command that is answered on its way in: it goes to redis once more.
const AT_ONCE_MAX: usize = 4096;

/// The answer to a command that waits for nothing. It is made before the command is accepted; where it cannot be given, the
/// command is accepted as any other, and it is made again.
#[derive(Debug)]
pub struct AtOnce {
    /// The command as it came.
    pub raw: Vec<u8>,
    /// Its keys.
    pub keys: Keys,
    /// Its result.
    pub json: String,
}

/// Whose queue a command came from.
#[derive(Clone, Debug)]
pub struct Sender {
    /// The caller that the queue belongs to.
    pub caller: Caller,
    /// How often it is logged what cannot be answered.
    log: Arc<LogQuota>,
}

impl Sender {
    /// Whose queue is `caller`'s.
    pub fn new(caller: Caller) -> Self {
        Self { caller, log: Arc::default() }
    }
}

/// A command that is refused before it is a job.
struct Refusal {
    id: String,
    command: String,
    outcome: Outcome,
}

impl Jobs {
    /// Takes a command from a queue. What comes of it is one result; or a line in the log, when nobody can be told.
    pub async fn accept(node: &Arc<Node>, sender: &Sender, ticket: Ticket, raw: &[u8]) {
        let jobs = &node.jobs;
        match jobs.judge(sender, &ticket, raw) {
            Ok(job) => jobs.begin(node, job, First::Run).await,
            Err(Some(refusal)) => jobs.refuse(sender, ticket, refusal).await,
            Err(None) => jobs.tell(Note::Drop { ticket }).await,
        }
    }

    /// The answer to a command that can be answered on its way in.
    pub fn at_once(node: &Arc<Node>, sender: &Sender, raw: &[u8]) -> Option<AtOnce> {
        let jobs = &node.jobs;
        // The results of named users are of another kind.
        if raw.len() > AT_ONCE_MAX || sender.caller.name().is_some() {
            return None;
        }
        let envelope = Envelope::parse(raw).ok()?;
        // What is for a container is not answered by the node.
        let Envelope { queue: None, recurring_period: None, stream: false, container: None, .. } = &envelope
        else {
            return None;
        };
        let entry = jobs.entry(sender, &envelope, raw.len(), false).ok().filter(|entry| entry.at_once)?;
        let keys = Keys::new(sender.caller.name(), &envelope.id);
        if jobs.is_known(&keys) {
            return None;
        }
        let Run::Answer(answer) = entry.run else { return None };
        let (id, caller, starttime) = (envelope.id.clone(), sender.caller.clone(), now_ms());
        let outcome =
            match answer(envelope.arguments, Context { id, caller, node: node.clone(), container: None }) {
                // What panics, or waits, does so again as a job, which deals with that.
                Ok(answering) => match AssertUnwindSafe(answering).catch_unwind().now_or_never()?.ok()? {
                    Ok(json) => Outcome::answer(json),
                    Err(error) => Outcome::error(&error),
                },
                Err(error) => Outcome::error(&error),
            };
        let result = outcome.result(&envelope.id, &envelope.command);
        let json = encode(JobResult { starttime, tags: envelope.tags, ..result });
        Some(AtOnce { raw: raw.into(), keys, json })
    }

    fn is_known(&self, keys: &Keys) -> bool {
        self.live.lock().contains_key(keys.name()) || self.remembered.lock().has(keys.name())
    }

    /// Waits until a command is a job, or is refused.
    pub async fn accepted(&self, caller: &Caller, id: &str) {
        let keys = Keys::new(caller.name(), id);
        loop {
            let mut accepted = std::pin::pin!(self.accepted.notified());
            accepted.as_mut().enable();
            if self.is_known(&keys) {
                return;
            }
            accepted.await;
        }
    }

    /// Takes a command that an earlier manager had accepted. Its process may still run; without one it is interrupted,
    /// unless it may run again and `first_time` says that it has not done so. One that recurs goes on after a pause.
    pub async fn resume(node: &Arc<Node>, sender: &Sender, ticket: Ticket, raw: &[u8], again: Again<'_>) {
        let jobs = &node.jobs;
        match jobs.judge(sender, &ticket, raw) {
            Ok(job) => match jobs.first_again(node, &job, again) {
                Some(first) => jobs.begin(node, job, first).await,
                None => {
                    jobs.remove(&job);
                    jobs.remembered.lock().put(job.keys.name().into());
                    let outcome = interrupted(&job);
                    let Envelope { id, command, .. } = job.envelope.clone();
                    jobs.refuse(sender, ticket, Refusal { id, command, outcome }).await;
                }
            },
            Err(Some(refusal)) => jobs.refuse(sender, ticket, refusal).await,
            Err(None) => jobs.tell(Note::Drop { ticket }).await,
        }
    }

    /// What a job of an earlier manager does first, if it goes on.
    fn first_again(&self, node: &Node, job: &Job, again: Again<'_>) -> Option<First> {
        let Again { adopted, first_time, restarts } = again;
        if let Some(child) = adopted.remove(job.keys.name()) {
            return Some(First::Follow(child, restarts));
        }
        let container = job.envelope.container.filter(|_| job.is_process());
        let container = container.and_then(|id| node.containers.get(id).ok());
        match container.and_then(|container| container.left.of(job.keys.name())) {
            Some(child) => Some(First::Late(Late { child, restarts, first_time })),
            None => First::without_process(job, first_time),
        }
    }

    /// Names whose results can still be read are no new commands.
    pub fn remember(&self, name: &str) {
        self.remembered.lock().put(name.into());
    }

    /// Makes a job of a command and puts it into the table; or says what is wrong with it, to whom it may concern.
    fn judge(&self, sender: &Sender, ticket: &Ticket, raw: &[u8]) -> Result<Arc<Job>, Option<Refusal>> {
        let envelope = match Envelope::parse(raw) {
            Ok(envelope) => envelope,
            Err(EnvelopeError::NoId(fault)) => {
                self.dropped.unreadable.fetch_add(1, Ordering::Relaxed);
                if sender.log.allows() {
                    tracing::warn!("something from {} is dropped: {fault}", sender.caller.user);
                }
                return Err(None);
            }
            Err(EnvelopeError::Refused { id, command, error }) => {
                self.new_name(sender, &id, &command)?;
                return Err(Some(Refusal { id, command, outcome: Outcome::error(&error) }));
            }
        };
        let keys = self.new_name(sender, &envelope.id, &envelope.command)?;
        let entry = match self.entry(sender, &envelope, raw.len(), ticket.resumed) {
            Ok(entry) => entry,
            Err(outcome) => {
                return Err(Some(Refusal { id: envelope.id, command: envelope.command, outcome }));
            }
        };
        let streams = if envelope.stream { vec![keys.stream()] } else { Vec::new() };
        let job = Arc::new(Job {
            ticket: ticket.clone(),
            caller: sender.caller.clone(),
            entry,
            started_ms: now_ms(),
            size: raw.len(),
            control: Control::default(),
            streams: Mutex::new(streams),
            envelope,
            keys,
        });
        self.bytes.fetch_add(job.size, Ordering::Relaxed);
        self.live.lock().insert(job.keys.name().into(), job.clone());
        self.accepted.notify_waiters();
        Ok(job)
    }

    /// The keys of a command whose name is not taken.
    fn new_name(&self, sender: &Sender, id: &str, command: &str) -> Result<Keys, Option<Refusal>> {
        let keys = Keys::new(sender.caller.name(), id);
        if self.is_known(&keys) {
            let state = State::DuplicateId.name();
            let command = shown(command);
            self.dropped.duplicates.fetch_add(1, Ordering::Relaxed);
            if sender.log.allows() {
                tracing::warn!("{state}: {command:?} {} is dropped, the first one is answered", keys.name());
            }
            return Err(None);
        }
        Ok(keys)
    }

    fn entry(
        &self,
        sender: &Sender,
        envelope: &Envelope,
        size: usize,
        resumed: bool,
    ) -> Result<&'static Entry, Outcome> {
        let name = &envelope.command;
        let Some(entry) = command::find(name) else {
            let name = shown(name);
            let error =
                CommandError::not_found(format!("there is no command {name:?}: system.commands lists all"));
            return Err(Outcome { state: State::UnknownCmd, ..Outcome::error(&error) });
        };
        if sender.caller.role < entry.role {
            let (user, needs) = (&sender.caller.user, entry.role);
            return Err(Outcome::error(&CommandError::forbidden(format!(
                "{name} needs the role {needs:?}, and {user} has {:?}",
                sender.caller.role
            ))));
        }
        // There was room when it was accepted.
        if resumed {
            return Ok(entry);
        }
        let Limits { accepted, accepted_bytes, .. } = self.limits;
        let (room, bytes_room) = match sender.caller.role {
            Role::Admin => (ADMIN_ROOM, accepted_bytes / 2),
            Role::Read | Role::Operate => (0, 0),
        };
        let busy = |what: String| {
            let message = format!("{what} are being worked on: wait for some to end");
            Err(Outcome::error(&CommandError::unavailable(message)))
        };
        if self.count() >= accepted + room {
            return busy(format!("{accepted} commands"));
        }
        // redis keeps them too, and what it cannot drop must not be all that it has room for.
        if self.bytes.load(Ordering::Relaxed) + size > accepted_bytes + bytes_room {
            return busy(format!("commands of {accepted_bytes} bytes"));
        }
        Ok(entry)
    }

    async fn begin(&self, node: &Arc<Node>, job: Arc<Job>, first: First) {
        if job.is_process() {
            self.tell_begun(&job).await;
        }
        let user = job.caller.user.as_str();
        let turn = job.envelope.queue.as_ref().map(|queue| self.serial.enter(&format!("{user}:{queue}")));
        tokio::spawn(Self::carry_out(node.clone(), job, turn, first));
    }

    async fn refuse(&self, sender: &Sender, ticket: Ticket, refusal: Refusal) {
        let Refusal { id, command, outcome } = refusal;
        let keys = Keys::new(sender.caller.name(), &id);
        self.remembered.lock().put(keys.name().into());
        self.accepted.notify_waiters();
        let result = outcome.result(&id, &command);
        let (json, restarted) = (encode(result), ticket.resumed);
        self.tell(Note::Answer { ticket, keys, json, begun: false, restarted, child: None }).await;
    }

    /// Tells redis something.
    pub async fn tell(&self, note: Note) {
        // The receiver outlives every job.
        let _ = self.parts.answers.send(note).await;
    }
}

/// What is known of commands that an earlier manager had accepted.
pub struct Again<'a> {
    /// The processes that still run.
    pub adopted: &'a mut Adopted,
    /// Whether this command has not been run again before.
    pub first_time: bool,
    /// How often its process was started again.
    pub restarts: u32,
}
