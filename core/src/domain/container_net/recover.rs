//! The networks that a manager before this one left.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::attach::{route_localnet, write};
use super::record::Record;
use super::{DEFAULT_BRIDGE, Entry, Id, NetworkError, Networks};
use crate::sys::netlink::{Change, Netlink};

impl Networks {
    /// Takes up the networks of the containers that live, and releases all others. Before anything is attached.
    pub async fn recover(self: &Arc<Self>, alive: &BTreeSet<Id>) -> Result<(), NetworkError> {
        let records = self.records.all()?;
        for record in &records {
            self.state.lock().entries.insert(record.id, Entry::new(record.clone()));
        }
        let (living, dead): (Vec<Record>, Vec<Record>) =
            records.into_iter().partition(|record| alive.contains(&record.id));
        for record in &dead {
            if let Err(error) = self.release(record.id).await {
                tracing::error!(container = record.id, %error, "what is left of a network stays");
            }
        }
        for record in &living {
            if let Err(error) = self.take_up(record).await {
                tracing::error!(container = record.id, %error, "the network of a container is not what it was");
            }
        }
        let targets: BTreeSet<&str> =
            living.iter().filter_map(|record| Some(record.target.as_ref()?.bridge.as_str())).collect();
        if !targets.is_empty() {
            self.forward().await?;
        }
        for bridge in targets {
            write(&route_localnet(bridge), "1")?;
        }
        self.linger();
        Ok(())
    }

    /// The links live with their container; the rest may have gone with the manager, or with its bridge.
    async fn take_up(&self, record: &Record) -> Result<(), NetworkError> {
        let held = self.hold(record).await;
        if record.uses(DEFAULT_BRIDGE) {
            self.bridges.ensure(&self.default_bridge).await.map_err(NetworkError::DefaultBridge)?;
        }
        let netlink = Netlink::open().await?;
        for nic in &record.nics {
            let link = netlink.link(&nic.link).await?;
            let bridge = netlink.link(&nic.bridge).await?;
            if link.controller != Some(bridge.index) {
                netlink.change(&link, Change::Controller(bridge.index)).await?;
            }
        }
        held
    }

    /// For the end of the node: the default bridge goes when no container uses it. The others keep their networks.
    pub async fn stop(&self) -> Result<(), NetworkError> {
        if let Some(lingering) = self.state.lock().lingering.take() {
            lingering.abort();
        }
        self.remove_idle_bridge().await
    }
}
