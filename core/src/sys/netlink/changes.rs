//! Links that change: told by the kernel, so that nobody has to look again and again.

use futures::StreamExt;
use futures::channel::mpsc::UnboundedReceiver;
use netlink_packet_route::RouteNetlinkMessage;
use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::NetlinkMessage;
use rtnetlink::sys::SocketAddr;
use tokio::task::JoinHandle;

use super::Error;

/// What changes from now on. It is kept in memory until it is asked for, so nobody holds this for long without asking.
#[derive(Debug)]
pub struct Changes {
    messages: UnboundedReceiver<(NetlinkMessage<RouteNetlinkMessage>, SocketAddr)>,
    connection: JoinHandle<()>,
}

impl Changes {
    /// Those of the network namespace of the calling thread.
    pub fn open() -> Result<Self, Error> {
        let (connection, _, messages) =
            rtnetlink::new_multicast_connection(&[MulticastGroup::Link]).map_err(Error::Socket)?;
        Ok(Self { messages, connection: tokio::spawn(connection) })
    }

    /// Waits for the next one, and takes all that came with it.
    pub async fn next(&mut self) {
        if self.messages.next().await.is_none() {
            // The kernel has closed it: whoever waits goes by its own deadline.
            std::future::pending::<()>().await;
        }
        while self.messages.try_recv().is_ok() {}
    }
}

impl Drop for Changes {
    fn drop(&mut self) {
        self.connection.abort();
    }
}
