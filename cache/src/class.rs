//! How urgent a read is, on what terms it waits, and how a wait becomes more urgent.

use std::time::Instant;

use tokio::sync::watch;

/// How urgent a read is. Whatever is bounded serves all who wait in one class before any of the next, and those of one
/// class in the order in which they came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Somebody waits for these bytes now.
    OnDemand,
    /// Somebody will probably ask for them next.
    ReadAhead,
    /// Somebody asked for them the last time.
    Profile,
    /// Nobody waits: a copy, a check.
    Background,
}

impl Class {
    /// How many classes there are.
    pub(crate) const COUNT: usize = Class::Background as usize + 1;

    /// The terms of a read of this class that is given up at `deadline`.
    pub const fn until(self, deadline: Instant) -> Terms {
        Terms { class: self, deadline }
    }
}

/// On what terms a read waits. A bare deadline is that of an on-demand read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// How urgent it is.
    pub class: Class,
    /// When it is given up.
    pub deadline: Instant,
}

impl From<Instant> for Terms {
    fn from(deadline: Instant) -> Terms {
        Class::OnDemand.until(deadline)
    }
}

/// The class of something that waits, which can rise meanwhile and never falls.
pub(crate) struct Urgency(watch::Sender<Class>);

impl Urgency {
    pub(crate) fn new(class: Class) -> Urgency {
        Urgency(watch::Sender::new(class))
    }

    /// Makes it at least as urgent as `class`.
    pub(crate) fn raise(&self, class: Class) {
        self.0.send_if_modified(|now| {
            let rises = class < *now;
            if rises {
                *now = class;
            }
            rises
        });
    }

    /// The class now.
    pub(crate) fn now(&self) -> Class {
        *self.0.borrow()
    }

    /// The class now and its changes.
    pub(crate) fn watch(&self) -> watch::Receiver<Class> {
        self.0.subscribe()
    }
}
