//! Jobs: every accepted command is one, from its acceptance to its one result.
//!
//! [`Jobs`] is the table of those that are not answered yet. [`run`] carries one out: its turn in a serial queue, its
//! runs and restarts, its deadline. [`process`] follows a process from its start to its end, [`output`] what it prints.

mod accept;
mod adopted;
mod errand;
mod looks;
mod meter;
mod outcome;
mod output;
mod process;
mod remembered;
mod run;
mod serial;
mod spool;
mod statistics;
mod table;
mod tail;
mod terminal;
mod usage;

pub use accept::{Again, AtOnce, Sender};
pub use adopted::{Adopted, abandon, know_logged};
pub use outcome::Outcome;
pub use statistics::Entry;
pub use table::{Job, JobInfo, Jobs, Parts};
pub use terminal::Entry as Input;
pub use usage::Usage;
