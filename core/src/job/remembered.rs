//! The names of commands that were answered: the same one sent again is a duplicate as long as its result can be read.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use crate::wire::RESULT_LIFE;

/// Most names; older ones are forgotten sooner.
const NAMES: usize = 65_536;

/// See the module's text.
#[derive(Debug, Default)]
pub struct Remembered {
    names: HashSet<Arc<str>>,
    oldest_first: VecDeque<(Instant, Arc<str>)>,
}

impl Remembered {
    /// Remembers a name from now on.
    pub fn put(&mut self, name: Arc<str>) {
        if self.names.insert(name.clone()) {
            self.oldest_first.push_back((Instant::now(), name));
        }
        while let Some((since, _)) = self.oldest_first.front() {
            if self.names.len() <= NAMES && since.elapsed() < RESULT_LIFE {
                return;
            }
            let Some((_, name)) = self.oldest_first.pop_front() else { return };
            self.names.remove(&name);
        }
    }

    /// Whether it is remembered.
    pub fn has(&self, name: &str) -> bool {
        self.names.contains(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_names_are_remembered() {
        let mut remembered = Remembered::default();
        (0..NAMES + 2).for_each(|i| remembered.put(i.to_string().into()));
        assert!(!remembered.has("0") && !remembered.has("1") && remembered.has("2"));
        assert_eq!((remembered.names.len(), remembered.oldest_first.len()), (NAMES, NAMES));
    }
}
