//! Where clients come from: a network address, or a unix socket that only this user and root may use.

use std::io;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};

/// Accepts clients.
pub(super) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// A client's end.
pub(super) type Connection = Box<dyn Stream>;

/// What a connection is over.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Listener {
    /// The next client. May be dropped and called again.
    pub(super) async fn accept(&self) -> io::Result<Connection> {
        match self {
            Listener::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "answers may be late by a delay of TCP");
                }
                Ok(Box::new(stream))
            }
            Listener::Unix(listener) => loop {
                let (stream, _) = listener.accept().await?;
                // The mode of the socket says so too; this holds however it was made.
                let user = stream.peer_cred()?.uid();
                if user == rustix::process::geteuid().as_raw() || user == 0 {
                    return Ok(Box::new(stream));
                }
                tracing::warn!(user, "another user's process is not served");
            },
        }
    }
}
