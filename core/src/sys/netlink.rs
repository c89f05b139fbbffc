//! Links, addresses and routes of the network namespace of the calling thread, by rtnetlink (rtnetlink(7)).
//!
//! A socket per command: it costs 20 us, sees every change, and nothing has to be kept in step.

mod address;
mod changes;
mod link;
mod route;

use std::io;
use std::time::Duration;

use rustix::io::Errno;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::JoinHandle;

pub use address::{Cidr, NoCidr};
pub use changes::Changes;
pub use link::{Change, Link};
pub use route::Route;

/// The kernel answers at once, or holds its lock for a device that is going away.
const DEADLINE: Duration = Duration::from_secs(10);

/// Most sockets at once; whoever asks for more waits.
static AT_ONCE: Semaphore = Semaphore::const_new(64);

/// Why the kernel did not do something.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No link of this name.
    #[error("no link {0}")]
    NoLink(String),
    /// The kernel refuses.
    #[error("the kernel refuses to {0}")]
    Refused(String, #[source] Errno),
    /// No socket, or not the one we asked for.
    #[error("talking to rtnetlink")]
    Socket(#[source] io::Error),
    /// What came is no answer.
    #[error("cannot {0}: {1}")]
    Broken(String, rtnetlink::Error),
    /// Nothing came.
    #[error("the kernel did not {0} within {1:?}")]
    Silent(String, Duration),
}

/// An open socket.
#[derive(Debug)]
pub struct Netlink {
    handle: rtnetlink::Handle,
    connection: JoinHandle<()>,
    _place: SemaphorePermit<'static>,
}

impl Netlink {
    /// Opens a socket in the network namespace of the calling thread.
    pub async fn open() -> Result<Self, Error> {
        let place = AT_ONCE.acquire().await.expect("it is never closed");
        let (connection, handle, _) = rtnetlink::new_connection().map_err(Error::Socket)?;
        Ok(Netlink { handle, connection: tokio::spawn(connection), _place: place })
    }
}

impl Drop for Netlink {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// Waits for an answer and says what it was about when there is none.
async fn answer<T>(
    what: String,
    asked: impl Future<Output = Result<T, rtnetlink::Error>>,
) -> Result<T, Error> {
    match tokio::time::timeout(DEADLINE, asked).await {
        Err(_) => Err(Error::Silent(what, DEADLINE)),
        Ok(Ok(value)) => Ok(value),
        Ok(Err(rtnetlink::Error::NetlinkError(message))) => {
            Err(Error::Refused(what, Errno::from_raw_os_error(message.raw_code().abs())))
        }
        Ok(Err(other)) => Err(Error::Broken(what, other)),
    }
}
