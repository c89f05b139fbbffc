//! One flight per missing block: however many readers miss it at once, it is fetched once.
//!
//! A flight is a task of its own, so no reader that goes away takes it down. Flights of different source lists are
//! different flights: a mount with bad sources never fails another one.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::block::VerifiedBlock;
use crate::error::GetError;
use crate::id::BlockId;

type Outcome = Result<VerifiedBlock, GetError>;
type Board = Mutex<HashMap<FlightKey, watch::Receiver<Option<Outcome>>>>;

/// Which readers share a flight.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct FlightKey {
    pub(super) id: BlockId,
    /// [`crate::Sources::identity`]; the flight holds the list, so the number is not given to another one meanwhile.
    pub(super) sources: usize,
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
        landed: impl FnOnce() -> Option<VerifiedBlock>,
        start: impl FnOnce() -> F,
    ) -> Outcome
    where
        F: Future<Output = Outcome> + Send + 'static,
    {
        let mut flight = {
            let mut board = self.0.lock();
            match board.get(&key) {
                Some(flight) => flight.clone(),
                None => {
                    if let Some(block) = landed() {
                        return Ok(block);
                    }
                    let (arrival, flight) = watch::channel(None);
                    board.insert(key, flight.clone());
                    tokio::spawn(fly(arrival, start(), Entry { board: Arc::clone(&self.0), key }));
                    flight
                }
            }
        };
        match flight.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone().unwrap_or(Err(GetError::Aborted { id: key.id })),
            Err(_gone) => Err(GetError::Aborted { id: key.id }),
        }
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
