//! Links, addresses and routes of the network namespace of the calling thread, or of another, by rtnetlink (rtnetlink(7)).
//!
//! A socket per command: it costs 20 us, sees every change, and nothing has to be kept in step.

mod address;
mod changes;
mod link;
mod route;
mod veth;

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::thread;
use std::time::Duration;

use rustix::io::Errno;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::sync::{Semaphore, SemaphorePermit, oneshot};
use tokio::task::JoinHandle;

pub use address::{Cidr, NoCidr};
pub use changes::Changes;
pub use link::{Change, Link, Vxlan};
pub use route::Route;
pub use veth::Veth;

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

    /// Opens a socket in another network namespace. Nothing has to run in there.
    pub async fn open_in(netns: BorrowedFd<'_>) -> Result<Self, Error> {
        let place = AT_ONCE.acquire().await.expect("it is never closed");
        let netns = netns.try_clone_to_owned().map_err(Error::Socket)?;
        let runtime = tokio::runtime::Handle::current();
        // A socket belongs to the namespace that its thread was in, and a thread that went there serves nobody else.
        let open = move || {
            let _runtime = runtime.enter();
            move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network))?;
            rtnetlink::new_connection()
        };
        let (done, opened) = oneshot::channel();
        thread::Builder::new()
            .name("netns".to_owned())
            .spawn(move || {
                // Whoever asked may have gone away.
                let _ = done.send(open());
            })
            .map_err(Error::Socket)?;
        let opened = opened.await.map_err(|_| Error::Socket(io::Error::other("its thread ended")))?;
        let (connection, handle, _) = opened.map_err(Error::Socket)?;
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
