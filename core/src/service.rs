//! Services: what the node keeps running. Each is a TOML file, not code, or a mount that the node was told of.
//!
//! [`mod@unit`] is such a file, [`graph`] orders them, [`supervise`] keeps one, [`ready`] knows when it is there. [`mount`] keeps a mount, [`summary`] says how all are. Stopping goes
//! backwards: what others come after ends last. What became of those that do not run outlives a manager that is killed: [`memory`]. A unit that cannot be used is shown as failed and says why; the others
//! run.

mod condition;
mod control;
mod graph;
mod memory;
mod mount;
mod ready;
mod status;
mod summary;
mod supervise;
mod table;
mod unit;

pub use mount::in_words;
pub use status::{ServiceState, Status};
pub use summary::Summary;
pub use table::{Parts, Services};
pub use unit::{Unit, UnitError};
