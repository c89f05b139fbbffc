//! The spawner: a small process that starts every job and service, and keeps them. One thread does that; another only watches how
//! many processes there are.
//!
//! It is their parent, so their exits reach it and no pid is taken again before it has said so; it holds the reading
//! ends of their output. When the manager is killed, the next one connects and gets everything handed over: jobs and
//! services keep their pids and lose no exit. It is a subreaper too: what a job leaves behind becomes its child, is
//! reaped here and goes with the node. Forking from it is cheap; from the manager it costs 39 ms per GiB of memory.
//!
//! It clones the first process of each container too, which goes on as a spawner in there: `inside` is that, reached over a
//! socket that this one keeps for the next manager.
//!
//! [`protocol`] has the messages, [`server`] is the process, [`client`] the manager's end.

mod client;
mod protocol;
pub mod server;

pub use client::{Child, Handle, Held, SpawnError, Spawner, kill_at};
pub use protocol::{Exit, Start, TooMany};
