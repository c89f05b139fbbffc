//! The daemon: an [`Engine`](crate::engine::Engine) behind a unix socket, one per cache folder.
//!
//! `protocol` has the messages, `server` the process that owns the cache, `client` finds it or starts it. The socket
//! lies in the cache folder with mode 0600, and both ends check who is on the other.

mod client;
mod protocol;
mod server;

pub use client::{Client, ClientError, Starter};
pub use protocol::{MountRequest, Refusal, Reply, Request};
pub use server::{ServeError, serve};

/// Name of the socket in the cache folder.
const SOCKET: &str = "daemon.sock";
/// Name of the log in the cache folder.
const LOG: &str = "daemon.log";
