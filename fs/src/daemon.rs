//! The daemon: an [`Engine`](crate::engine::Engine) behind a unix socket, one per cache folder.
//!
//! `protocol` has the messages, `server` the process that owns the cache, `client` finds it or starts it. The socket
//! lies in the cache folder with mode 0600, and both ends check who is on the other.
//!
//! A client that keeps a mount ([`Request::Keep`]) has it go on in the next daemon ([`Request::Resume`]) when this one dies.
//!
//! Another process that wants what the cache holds, as `flist serve` does, has the daemon open a second socket (`blocks`)
//! and keeps it alive by a `link`; [`cache_source`](crate::source::cache_source) asks there.

mod blocks;
mod caller;
mod carrier;
mod client;
mod link;
mod process;
mod protocol;
mod server;

pub(crate) use blocks::SOCKET as BLOCKS_SOCKET;
pub(crate) use client::short_path;
pub use client::{Client, ClientError, Keepsake, Starter};
pub use link::Link;
pub use process::run as run_process;
pub use protocol::{MountRequest, Refusal, Reply, Request};
pub use server::{ServeError, serve};

/// Name of the socket in the cache folder.
const SOCKET: &str = "daemon.sock";
/// Name of the log in the cache folder.
const LOG: &str = "daemon.log";
