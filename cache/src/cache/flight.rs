//! One flight per missing block: however many readers miss it at once, it is fetched once.
//!
//! A flight is a task of its own, so no reader that goes away takes it down, and it is as urgent as the most urgent
//! reader that joined it. Flights of different source lists are different flights: a mount with bad sources never
//! fails another one.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::block::VerifiedBlock;
use crate::class::{Class, Urgency};
use crate::error::GetError;
use crate::id::BlockId;

type Outcome = Result<VerifiedBlock, GetError>;
type Board = Mutex<HashMap<FlightKey, Flight>>;

/// Which readers share a flight.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct FlightKey {
    pub(super) id: BlockId,
    /// [`crate::Sources::identity`]; the flight holds the list, so the number is not given to another one meanwhile.
    pub(super) sources: usize,
}

/// A flight as its readers see it.
#[derive(Clone)]
struct Flight {
    urgency: Arc<Urgency>,
    arrival: watch::Receiver<Option<Outcome>>,
}

/// The flights under way.
#[derive(Default)]
pub(super) struct Flights(Arc<Board>);

impl Flights {
    /// Waits for the flight of `key`, which `start` makes if there is none. `landed` gives what a flight brought that
    /// ended after the caller had looked.
    pub(super) async fn join<F>(
        &self,
        key: FlightKey,
        class: Class,
        landed: impl Fn() -> Option<VerifiedBlock>,
        start: impl Fn(Arc<Urgency>) -> F,
    ) -> Outcome
    where
        F: Future<Output = Outcome> + Send + 'static,
    {
        loop {
            let mut flight = {
                let mut board = self.0.lock();
                match board.get(&key) {
                    Some(flight) => flight.clone(),
                    None => {
                        if let Some(block) = landed() {
                            return Ok(block);
                        }
                        self.take_off(&mut board, key, class, &start)
                    }
                }
            };
            flight.urgency.raise(class);
            let outcome = match flight.arrival.wait_for(Option::is_some).await {
                Ok(outcome) => outcome.clone().unwrap_or(Err(GetError::Aborted { id: key.id })),
                Err(_gone) => Err(GetError::Aborted { id: key.id }),
            };
            match outcome {
                // Its time was over, and not that of its readers: theirs is up to them.
                Err(GetError::TimedOut { .. }) => {}
                outcome => return outcome,
            }
        }
    }

    fn take_off<F>(
        &self,
        board: &mut HashMap<FlightKey, Flight>,
        key: FlightKey,
        class: Class,
        start: impl Fn(Arc<Urgency>) -> F,
    ) -> Flight
    where
        F: Future<Output = Outcome> + Send + 'static,
    {
        let urgency = Arc::new(Urgency::new(class));
        let (outcome, arrival) = watch::channel(None);
        let flight = Flight { urgency: Arc::clone(&urgency), arrival };
        board.insert(key, flight.clone());
        tokio::spawn(fly(outcome, start(urgency), Entry { board: Arc::clone(&self.0), key }));
        flight
    }
}

/// Off the board before the outcome is told: who comes later starts anew, so that no failure is remembered.
/// Also when the flight panics: the last parameter is dropped first.
async fn fly<F: Future<Output = Outcome>>(arrival: watch::Sender<Option<Outcome>>, flight: F, entry: Entry) {
    let outcome = flight.await;
    drop(entry);
    arrival.send_replace(Some(outcome));
}

/// A line on the board, wiped also when the flight panics.
struct Entry {
    board: Arc<Board>,
    key: FlightKey,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.board.lock().remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use std::time::Duration;

    use super::*;
    use crate::block::StoredBlock;
    use crate::error::SaidList;
    use crate::id::Codec;

    #[tokio::test]
    async fn the_limit_of_a_flight_is_not_that_of_the_reader_who_started_it() {
        let id = BlockId::of(Codec::Raw, b"late");
        let block = StoredBlock::new(id, b"late".as_slice()).unwrap().verify().unwrap();
        let (flights, begun) = (Flights::default(), AtomicUsize::new(0));
        let start = |_| {
            let outcome = match begun.fetch_add(1, SeqCst) {
                0 => {
                    Err(GetError::TimedOut { id, waited: Duration::from_secs(60), said: SaidList::default() })
                }
                _ => Ok(block.clone()),
            };
            std::future::ready(outcome)
        };
        let got = flights.join(FlightKey { id, sources: 0 }, Class::OnDemand, || None, start).await.unwrap();
        assert_eq!((got.id(), begun.load(SeqCst)), (id, 2));
    }
}
