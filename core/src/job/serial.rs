//! Serial queues: jobs of one queue run one after the other, in the order in which they were accepted.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

/// All queues that somebody is in.
#[derive(Debug, Default)]
pub struct Serial {
    /// Who waits behind the one whose turn it is.
    queues: Mutex<HashMap<String, VecDeque<oneshot::Sender<()>>>>,
}

/// A place in a queue. Dropping it lets the next one on.
#[derive(Debug)]
pub struct Turn {
    serial: Arc<Serial>,
    name: String,
    /// `None` once it has come.
    comes: Option<oneshot::Receiver<()>>,
}

impl Serial {
    /// Takes a place at the end of a queue, at once.
    pub fn enter(self: &Arc<Self>, name: &str) -> Turn {
        let mut queues = self.queues.lock();
        let comes = match queues.get_mut(name) {
            Some(waiting) => {
                let (sender, receiver) = oneshot::channel();
                waiting.push_back(sender);
                Some(receiver)
            }
            None => {
                queues.insert(name.into(), VecDeque::new());
                None
            }
        };
        Turn { serial: self.clone(), name: name.into(), comes }
    }

    fn next(&self, name: &str) {
        let mut queues = self.queues.lock();
        let Some(waiting) = queues.get_mut(name) else { return };
        while let Some(next) = waiting.pop_front() {
            // One that was killed while it waited does not listen any more.
            if next.send(()).is_ok() {
                return;
            }
        }
        queues.remove(name);
    }
}

impl Turn {
    /// Waits until it comes.
    pub async fn come(&mut self) {
        if let Some(comes) = &mut self.comes {
            // The sender is kept until it is this one's turn.
            let _ = comes.await;
            self.comes = None;
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let came = match &mut self.comes {
            None => true,
            Some(comes) => {
                comes.close();
                // The turn may have come and nobody looked.
                comes.try_recv().is_ok()
            }
        };
        if came {
            self.serial.next(&self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn turns_come_in_order_and_one_that_left_is_skipped() {
        let serial = Arc::new(Serial::default());
        let mut first = serial.enter("q");
        let left = serial.enter("q");
        let mut third = serial.enter("q");
        let mut elsewhere = serial.enter("other");
        elsewhere.come().await;
        first.come().await;
        drop(left);
        let early = tokio::time::timeout(std::time::Duration::from_millis(20), third.come()).await;
        assert!(early.is_err(), "the third came before the first left");
        drop(first);
        third.come().await;
        drop(third);
        drop(elsewhere);
        assert!(serial.queues.lock().is_empty());
    }

    #[tokio::test]
    async fn a_turn_that_came_unseen_is_passed_on() {
        let serial = Arc::new(Serial::default());
        let first = serial.enter("q");
        let second = serial.enter("q");
        let mut third = serial.enter("q");
        drop(first);
        drop(second);
        third.come().await;
    }
}
