//! What all services have in common, whatever they keep: a name, what they are doing, and whether they shall.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use super::memory::Memory;
use super::status::{ServiceState, Status};

/// The first pause before a service is started again; it doubles.
pub const PAUSE: Duration = Duration::from_millis(100);
/// The longest one.
pub const PAUSE_MAX: Duration = Duration::from_secs(30);

/// See the module's text.
#[derive(Debug)]
pub struct Control {
    /// Its name.
    pub name: String,
    /// Whether it shall run.
    pub wanted: watch::Sender<bool>,
    /// What it is doing.
    pub status: watch::Sender<Status>,
    memory: Arc<Memory>,
}

impl Control {
    /// One that shall run.
    pub fn new(name: &str, state: ServiceState, memory: Arc<Memory>) -> Arc<Self> {
        let status = watch::Sender::new(Status::new(state, ""));
        Arc::new(Self { name: name.into(), wanted: watch::Sender::new(true), status, memory })
    }

    /// What an earlier manager knew of it.
    pub fn past(&self) -> Option<Status> {
        self.memory.of(&self.name)
    }

    /// It is in another state.
    pub fn enter(&self, state: ServiceState, pid: i32, reason: impl Into<String>) {
        let restarts = self.status.borrow().restarts;
        self.turn(Status { pid, restarts, ..Status::new(state, reason) });
    }

    /// What others see is remembered already.
    pub fn turn(&self, status: Status) {
        if *self.wanted.borrow() || status.state == ServiceState::Stopped {
            self.memory.note(&self.name, &status);
        } else {
            self.stays_stopped();
        }
        self.status.send_replace(status);
    }

    /// It is not started by the next manager, although it has not ended yet.
    pub fn stays_stopped(&self) {
        if self.past().is_none_or(|past| past.state != ServiceState::Stopped) {
            self.memory.note(&self.name, &Status::new(ServiceState::Stopped, ""));
        }
    }

    /// Waits for a time or for a change of mind: `wanted` off and on again is a restart.
    pub async fn idle(&self, time: Option<Duration>, wanted: &mut watch::Receiver<bool>) {
        let time = async {
            match time {
                Some(time) => sleep(time).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = time => {}
            () = not_wanted(wanted) => {}
        }
    }

    /// Stops it, and returns when it is stopped.
    pub async fn stop(&self) {
        let mut status = self.status.subscribe();
        let mut wanted = self.wanted.subscribe();
        self.wanted.send_replace(false);
        // The task lives as long as the service. It may never see that it was stopped, when somebody starts it at once.
        tokio::select! {
            _ = status.wait_for(|status| status.state == ServiceState::Stopped && status.pid == 0) => {}
            _ = wanted.wait_for(|wanted| *wanted) => {}
        }
    }
}

/// Waits until a service shall not run.
pub async fn not_wanted(wanted: &mut watch::Receiver<bool>) {
    // A sender that is gone wants nothing.
    let _ = wanted.wait_for(|wanted| !*wanted).await;
}
