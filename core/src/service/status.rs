//! What a service is doing, as others see it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::log::now_ms;

/// What a service is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ServiceState {
    /// What it comes after is not ready.
    Waiting,
    /// It runs and is not ready.
    Starting,
    /// It runs and is ready.
    Ready,
    /// A one-shot that ended well.
    Done,
    /// It ended, and is started again after a pause.
    Pausing,
    /// It ended and is not started again, or cannot be started at all.
    Failed,
    /// It ended well by itself, and is not started again.
    Ended,
    /// It was told to stop.
    Stopped,
    /// Its condition does not hold here. Who comes after it does not wait for it.
    Skipped,
}

/// As in JSON.
impl std::fmt::Display for ServiceState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.serialize(f)
    }
}

impl ServiceState {
    /// Whether those that come after it may start.
    pub fn lets_others_start(self) -> bool {
        match self {
            Self::Ready | Self::Done | Self::Skipped => true,
            Self::Waiting | Self::Starting | Self::Pausing | Self::Failed | Self::Ended | Self::Stopped => {
                false
            }
        }
    }
}

/// A service as a list shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Status {
    /// What it is doing.
    pub state: ServiceState,
    /// Since when, in ms since 1970.
    pub since: u64,
    /// Its process; 0 when there is none.
    pub pid: i32,
    /// How often it was started again.
    pub restarts: u32,
    /// Why it is in this state, when that is not plain.
    pub reason: String,
}

impl Status {
    /// From now on, without a process.
    pub fn new(state: ServiceState, reason: impl Into<String>) -> Self {
        Self { state, since: now_ms(), pid: 0, restarts: 0, reason: reason.into() }
    }
}
