//! Taking the network of a container apart, in whatever state it is.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;

use super::attach::{route_localnet, write};
use super::record::{NicRecord, Record};
use super::{DEFAULT_BRIDGE, Id, NetworkError, Networks};
use crate::sys::netlink::{self, Netlink};

/// How long the kernel may take to remove the links of a container that ended. It removes those of many in one go; by
/// hand, each one holds up all that is made meanwhile for some twenty milliseconds.
const PATIENCE: Duration = Duration::from_millis(500);

impl Networks {
    /// Takes everything back that [`Networks::attach`] gave to a container; what is not there is gone already. When it
    /// fails, it can be called again, and the next manager does it, too. It is cheapest when the container has ended and
    /// nobody has its network namespace open.
    pub async fn release(self: &Arc<Self>, id: Id) -> Result<(), NetworkError> {
        let Some(turn) = self.state.lock().entries.get(&id).map(|entry| entry.turn.clone()) else {
            return Ok(());
        };
        let networks = self.clone();
        let released = tokio::spawn(async move {
            let _turn = turn.lock().await;
            // Whoever had the turn may have released it.
            let record = networks.state.lock().entries.get(&id).map(|entry| entry.record.clone());
            match record {
                Some(record) => networks.unmake(&record, PATIENCE).await,
                None => Ok(()),
            }
        });
        released.await.map_err(|e| NetworkError::Interrupted(id, e))?
    }

    /// The container of a network is about to end: who wants its ports waits for them.
    pub fn ends(&self, id: Id) {
        if let Some(entry) = self.state.lock().entries.get_mut(&id) {
            entry.ending = true;
        }
    }

    /// Removes whatever is there of a network: first the way in, last the record.
    pub(super) async fn unmake(
        self: &Arc<Self>,
        record: &Record,
        patience: Duration,
    ) -> Result<(), NetworkError> {
        if let Some(entry) = self.state.lock().entries.get_mut(&record.id) {
            entry.ending = true;
            // Once more, after one that failed, there are none.
            entry.leaving.append(&mut entry.record.ports);
        }
        // What cannot be removed does not keep the rest here.
        let closed = self.close(record).await;
        let unlinked = remove_links(record, patience).await;
        closed.and(unlinked)?;
        self.records.remove(record.id)?;
        // The sockets go with it, and with them the ports.
        self.state.lock().entries.remove(&record.id);
        self.released.notify_waiters();
        if record.uses(DEFAULT_BRIDGE) {
            self.linger();
        }
        Ok(())
    }

    /// Closes the way in: no port leads here any more.
    async fn close(&self, record: &Record) -> Result<(), NetworkError> {
        let Some(target) = &record.target else { return Ok(()) };
        self.forward().await?;
        self.close_loopback(&target.bridge)
    }

    /// Packets of the loopback pass a bridge no more when no port leads there.
    fn close_loopback(&self, bridge: &str) -> Result<(), NetworkError> {
        let state = self.state.lock();
        let leads_there = |record: &Record| {
            record.forwards().next().is_some() && record.target.as_ref().is_some_and(|t| t.bridge == bridge)
        };
        if state.entries.values().any(|entry| leads_there(&entry.record)) {
            return Ok(());
        }
        match write(&route_localnet(bridge), "0") {
            // The bridge is gone.
            Err(NetworkError::File(_, e)) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            written => written,
        }
    }

    /// Removes the default bridge after a while, unless a container uses it then.
    pub(super) fn linger(self: &Arc<Self>) {
        let mut state = self.state.lock();
        if state.entries.values().any(|entry| entry.record.uses(DEFAULT_BRIDGE)) {
            return;
        }
        let networks = Arc::downgrade(self);
        let linger = self.linger;
        let later = tokio::spawn(async move {
            tokio::time::sleep(linger).await;
            let Some(networks) = networks.upgrade() else { return };
            // On its own: whoever ends this wait must not end it half-way.
            tokio::spawn(async move {
                if let Err(error) = networks.remove_idle_bridge().await {
                    tracing::error!(%error, "the default bridge stays");
                }
            });
        });
        if let Some(earlier) = state.lingering.replace(later) {
            earlier.abort();
        }
    }

    /// Removes the default bridge unless a container uses it.
    pub(super) async fn remove_idle_bridge(&self) -> Result<(), NetworkError> {
        let _alone = self.bridge_use.write().await;
        if !self.users(DEFAULT_BRIDGE).is_empty() {
            return Ok(());
        }
        // One that somebody else made is theirs.
        if self.bridges.find(DEFAULT_BRIDGE)?.as_ref() == Some(&self.default_bridge) {
            self.bridges.delete(DEFAULT_BRIDGE).await.map_err(NetworkError::DefaultBridge)?;
        }
        Ok(())
    }
}

async fn remove_links(record: &Record, patience: Duration) -> Result<(), NetworkError> {
    let netlink = Netlink::open().await?;
    for nic in &record.nics {
        remove_link(&netlink, nic, patience).await?;
    }
    Ok(())
}

/// Both ends go with it. A link of this name with another hardware address came from elsewhere.
async fn remove_link(netlink: &Netlink, nic: &NicRecord, patience: Duration) -> Result<(), NetworkError> {
    let link = match netlink.link(&nic.link).await {
        Ok(link) if link.address == nic.link_hardware => link,
        Ok(_) | Err(netlink::Error::NoLink(_)) => return Ok(()),
        Err(e) => return Err(e.into()),
    };
    if !patience.is_zero() && Netlink::until_gone(&link, patience).await? {
        return Ok(());
    }
    match netlink.delete_link(&link).await {
        // It went with the namespace of its other end.
        Err(netlink::Error::Refused(_, Errno::NODEV)) => Ok(()),
        removed => Ok(removed?),
    }
}
