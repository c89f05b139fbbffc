//! Knowing when a service is ready: a line it prints, a port it takes, a word it sends.

use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpStream, UnixDatagram};
use tokio::sync::Notify;

use super::unit::Ready;

/// Pause between two looks at a port.
const LOOK: Duration = Duration::from_millis(50);
/// Longest message to the notify socket.
const MESSAGE_MAX: usize = 4096;

/// What is waited for.
pub enum Watch {
    /// Nothing: it is ready when it runs.
    Nothing,
    /// The line was seen.
    Line(Arc<Notify>),
    /// The port.
    Port(u16),
    /// The socket; it is removed in the end.
    Socket(UnixDatagram, PathBuf),
}

impl Watch {
    /// Sets it up before the service is started. `socket` is where a notify socket goes.
    pub fn new(ready: Option<&Ready>, socket: &Path) -> io::Result<Self> {
        Ok(match ready {
            None => Self::Nothing,
            Some(Ready::Match(_)) => Self::Line(Arc::default()),
            Some(Ready::Port(port)) => Self::Port(*port),
            Some(Ready::Notify) => {
                match std::fs::remove_file(socket) {
                    Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                    Ok(()) | Err(_) => {}
                }
                Self::Socket(UnixDatagram::bind(socket)?, socket.into())
            }
        })
    }

    /// What is told when the line was seen.
    pub fn line(&self) -> Option<Arc<Notify>> {
        match self {
            Self::Line(seen) => Some(seen.clone()),
            Self::Nothing | Self::Port(_) | Self::Socket(..) => None,
        }
    }

    /// Waits until it is ready.
    pub async fn ready(&self) {
        match self {
            Self::Nothing => {}
            Self::Line(seen) => seen.notified().await,
            Self::Port(port) => {
                while TcpStream::connect((Ipv4Addr::LOCALHOST, *port)).await.is_err() {
                    tokio::time::sleep(LOOK).await;
                }
            }
            Self::Socket(socket, _) => {
                let mut message = [0; MESSAGE_MAX];
                loop {
                    match socket.recv(&mut message).await {
                        Ok(count)
                            if message[..count].split(|&b| b == b'\n').any(|line| line == b"READY=1") =>
                        {
                            return;
                        }
                        Ok(_) => {}
                        Err(e) => {
                            tracing::warn!("a notify socket fails: {e}");
                            std::future::pending::<()>().await;
                        }
                    }
                }
            }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Self::Socket(_, path) = self {
            // The next start removes it first, too.
            let _ = std::fs::remove_file(path);
        }
    }
}
