//! A list as whoever keeps it up to date has it: by a handle that does not keep it alive, and with a place for what it adds.

use std::sync::{Arc, Weak};

use super::{AddError, List, MAX_SOURCES, Sources};
use crate::source::Source;

/// A list that lives as long as somebody else has it.
#[derive(Clone)]
pub struct WeakSources(Weak<List>);

impl WeakSources {
    /// The list, if it is still there.
    pub fn upgrade(&self) -> Option<Sources> {
        self.0.upgrade().map(Sources)
    }

    /// Whether it is a handle of `list`.
    pub fn is_of(&self, list: &Sources) -> bool {
        std::ptr::eq(self.0.as_ptr(), Arc::as_ptr(&list.0))
    }
}

impl Sources {
    /// A handle that does not keep the list alive.
    pub fn downgrade(&self) -> WeakSources {
        WeakSources(Arc::downgrade(&self.0))
    }

    /// Adds a source right behind the one that `before` names, to be asked before what comes after that; last, when it is not
    /// there.
    pub fn add_behind(&self, before: &str, source: Arc<Source>) -> Result<(), AddError> {
        self.change(|listed| {
            if listed.iter().any(|there| there.spec() == source.spec()) {
                return Err(AddError::Present);
            }
            if listed.len() >= MAX_SOURCES {
                return Err(AddError::Full);
            }
            let place = listed.iter().position(|there| **there.spec() == *before);
            let place = place.map_or(listed.len(), |place| place + 1);
            let mut now = listed.to_vec();
            now.insert(place, Arc::clone(&source));
            *listed = now.into();
            Ok(())
        })
    }
}
