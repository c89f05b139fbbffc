//! What the console says of a stage. PID 1 says it too, so this needs nothing else of the boot.

use std::fmt;

use rustix::time::{ClockId, clock_gettime};

/// Where a stage is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It works.
    Runs,
    /// It waits for something.
    Waits(String),
    /// It is through, and this came out.
    Done(String),
    /// It failed, and the boot went on.
    Failed(String),
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Runs => f.write_str("runs"),
            Self::Waits(what) => write!(f, "waits   {what}"),
            Self::Done(what) => write!(f, "done    {what}"),
            Self::Failed(why) => write!(f, "failed  {why}"),
        }
    }
}

/// A line about a stage, as PID 1 writes it too.
pub fn line(stage: &str, state: &State) -> String {
    let now = clock_gettime(ClockId::Boottime);
    format!("[{:>4}.{:02}] {stage:<10} {state}", now.tv_sec, now.tv_nsec / 10_000_000)
}
