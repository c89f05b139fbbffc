//! A bound on what is under way, whose places go to the most urgent who waits.
//!
//! Strict: nobody of a class gets a place while one of a more urgent class waits, and within a class the first to come is
//! the first to enter. A class may also see fewer places than there are, so that the rest is kept free for those
//! above it. A waiter whose urgency rises joins the end of the more urgent queue.
//!
//! The rule that loses no place: who is in the queue has none, and who was taken out of it has one, whether it knows
//! already or not. So a [`Place`] is made before the wait, and dropping it does what is right at any moment.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::class::{Class, Urgency};

/// The gate. A clone is the same gate.
#[derive(Clone)]
pub(crate) struct Gate(Arc<Shared>);

struct Shared {
    /// A class enters while fewer places than this are taken, by whomever.
    limits: [usize; Class::COUNT],
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    taken: usize,
    next_ticket: u64,
    /// In the order in which they enter.
    waiting: BTreeMap<Ticket, oneshot::Sender<()>>,
}

/// The place in the queue: most urgent first, then first come.
type Ticket = (Class, u64);

impl Gate {
    /// A gate with these limits, from the most urgent class on; none is zero, and none is above the one before.
    pub(crate) fn new(limits: [usize; Class::COUNT]) -> Gate {
        debug_assert!(limits.is_sorted_by(|above, below| above >= below) && !limits.contains(&0));
        Gate(Arc::new(Shared { limits, queue: Mutex::default() }))
    }

    /// Waits for a place.
    pub(crate) async fn enter(&self, urgency: &Urgency) -> Place {
        let mut classes = urgency.watch();
        let class = *classes.borrow_and_update();
        let (mut place, entered) = self.line_up(class);
        let Some(mut entered) = entered else { return place };
        loop {
            tokio::select! {
                biased;
                _ = &mut entered => return place,
                Ok(()) = classes.changed() => {
                    let class = *classes.borrow_and_update();
                    place.rise(class);
                }
            }
        }
    }

    /// A place, and a bell when it is one in the queue as yet.
    fn line_up(&self, class: Class) -> (Place, Option<oneshot::Receiver<()>>) {
        let mut queue = self.0.queue.lock();
        let ticket = queue.ticket(class);
        let place = Place { gate: Arc::clone(&self.0), ticket };
        // Nobody is passed: where this class may enter, everybody as urgent has entered.
        if queue.taken < self.0.limits[class as usize] {
            queue.taken += 1;
            return (place, None);
        }
        let (bell, entered) = oneshot::channel();
        queue.waiting.insert(ticket, bell);
        (place, Some(entered))
    }
}

impl Queue {
    fn ticket(&mut self, class: Class) -> Ticket {
        self.next_ticket += 1;
        (class, self.next_ticket)
    }

    /// Takes out who enters next, if there is a place for it. Once is enough after each change: a place that is left
    /// or a waiter that rises lets one in.
    fn admit(&mut self, limits: &[usize; Class::COUNT]) -> Option<oneshot::Sender<()>> {
        let first = self.waiting.first_entry()?;
        let (class, _) = *first.key();
        // Where the most urgent may not enter, nobody may.
        if self.taken >= limits[class as usize] {
            return None;
        }
        self.taken += 1;
        Some(first.remove())
    }
}

/// A place, or one in the queue until [`Gate::enter`] has given it out. Left when dropped.
pub(crate) struct Place {
    gate: Arc<Shared>,
    ticket: Ticket,
}

impl Place {
    /// Joins the queue of `class`, unless it has entered meanwhile.
    fn rise(&mut self, class: Class) {
        let entered = {
            let mut queue = self.gate.queue.lock();
            let Some(bell) = queue.waiting.remove(&self.ticket) else { return };
            self.ticket = queue.ticket(class);
            queue.waiting.insert(self.ticket, bell);
            queue.admit(&self.gate.limits)
        };
        ring(entered);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Out of the lock before anybody is woken.
        let (gave_up, entered) = {
            let mut queue = self.gate.queue.lock();
            match queue.waiting.remove(&self.ticket) {
                Some(bell) => (Some(bell), None),
                None => {
                    queue.taken -= 1;
                    (None, queue.admit(&self.gate.limits))
                }
            }
        };
        drop(gave_up);
        ring(entered);
    }
}

fn ring(entered: Option<oneshot::Sender<()>>) {
    if let Some(bell) = entered {
        // Who went away at this very moment finds itself out of the queue and leaves the place again.
        let _ = bell.send(());
    }
}

#[cfg(test)]
mod tests;
