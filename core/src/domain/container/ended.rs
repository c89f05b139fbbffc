//! Containers that have ended: the last ones, how each did, and what it said last. They are forgotten with the manager.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Container, Id};
use crate::log::now_ms;
use crate::spawner::Exit;

/// How many are remembered.
const KEPT: usize = 64;
/// How many lines, and bytes of each.
const LINES: usize = 10;
const LINE_MAX: usize = 512;

/// What an entrypoint said last.
#[derive(Clone, Debug, Default)]
pub struct Words(Arc<Mutex<VecDeque<String>>>);

impl Words {
    /// One more line; the oldest makes room.
    pub fn put(&self, line: &str) {
        let mut lines = self.0.lock();
        if lines.len() == LINES {
            lines.pop_front();
        }
        lines.push_back(line[..line.floor_char_boundary(LINE_MAX)].to_owned());
    }

    /// All of them, the oldest first.
    pub fn lines(&self) -> Vec<String> {
        self.0.lock().iter().cloned().collect()
    }
}

/// One that has ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// Its number.
    pub id: Id,
    /// Its name.
    pub name: String,
    /// When it was made, in ms since 1970.
    pub started_ms: u64,
    /// When it ended.
    pub ended_ms: u64,
    /// How its entrypoint ended, if it did so before the container.
    pub exit: Option<Exit>,
    /// What that said last.
    pub words: Words,
}

/// The last ones, the newest first.
#[derive(Debug, Default)]
pub struct AllEnded(Mutex<VecDeque<Ended>>);

impl AllEnded {
    /// One more.
    pub(super) fn put(&self, container: &Container, exit: Option<Exit>) {
        let ended = Ended {
            id: container.id,
            name: container.wanted.name.clone(),
            started_ms: container.started_ms,
            ended_ms: now_ms(),
            exit,
            words: container.words.clone(),
        };
        let mut all = self.0.lock();
        all.truncate(KEPT - 1);
        all.push_front(ended);
    }

    /// The newest of this number.
    pub fn of(&self, id: Id) -> Option<Ended> {
        self.0.lock().iter().find(|ended| ended.id == id).cloned()
    }

    /// The newest of this number, or of this name.
    pub fn find(&self, query: &str) -> Option<Ended> {
        let by_number = query.parse().ok().and_then(|id| self.of(id));
        by_number.or_else(|| self.0.lock().iter().find(|ended| ended.name == query).cloned())
    }
}
