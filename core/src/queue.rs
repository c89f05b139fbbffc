//! The queues: commands come in from redis lists, results go out.
//!
//! A command is accepted when it is in the hash `core:inflight:USER`. [`intake`] moves it there: it waits with BLMOVE for
//! one, then a script takes up to 63 more, and gives the same ones again until it hears that they arrived. [`answers`] gives the result and takes the command out of the hash in one
//! script, and only what was in the hash is answered: so a reply that got lost is asked for again without harm, and no
//! command is ever answered twice. [`recover`] deals with what an earlier manager left in it.

pub mod answers;
pub mod intake;
pub mod recover;

use std::sync::Arc;

use crate::spawner::Child;
use crate::wire::Keys;

/// Most commands or results of one round trip.
const BATCH: usize = 64;

/// An accepted command: its place in the hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// Whose hash.
    pub user: Arc<str>,
    /// Which field.
    pub seq: u64,
    /// Whether an earlier manager had accepted it.
    pub resumed: bool,
}

impl Ticket {
    /// The hash of accepted commands.
    fn inflight(&self) -> String {
        inflight_key(&self.user)
    }

    /// The set of those that ran again already.
    fn again(&self) -> String {
        again_key(&self.user)
    }

    /// The hash of how often processes were started again.
    fn restarts(&self) -> String {
        restarts_key(&self.user)
    }
}

fn inflight_key(user: &str) -> String {
    format!("core:inflight:{user}")
}

/// The first and the last number of the batch that was accepted last.
fn batch_key(user: &str) -> String {
    format!("core:batch:{user}")
}

fn again_key(user: &str) -> String {
    format!("core:again:{user}")
}

fn restarts_key(user: &str) -> String {
    format!("core:restarts:{user}")
}

/// What redis is told of a job.
#[derive(Debug)]
pub enum Note {
    /// It was accepted, and it will take a while.
    Begin {
        /// Its place.
        ticket: Ticket,
        /// Its keys.
        keys: Keys,
    },
    /// Its process failed, and is started again for so many times in a row: the next manager goes on from there.
    Restarts {
        /// Its place.
        ticket: Ticket,
        /// How often.
        count: u32,
    },
    /// Its result.
    Answer {
        /// Its place.
        ticket: Ticket,
        /// Its keys.
        keys: Keys,
        /// The result.
        json: String,
        /// Whether a [`Note::Begin`] came before.
        begun: bool,
        /// Whether there may have been a [`Note::Restarts`].
        restarted: bool,
        /// The process that it is about. Until the result is written, the spawner keeps what the next manager would need.
        child: Option<Child>,
    },
    /// One more command, for a user's queue. It may get there twice.
    Push {
        /// The queue.
        queue: String,
        /// The command.
        json: String,
    },
    /// Nobody can be answered, or somebody is already.
    Drop {
        /// Its place.
        ticket: Ticket,
    },
}
