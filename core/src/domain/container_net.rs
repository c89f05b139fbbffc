//! Networks of containers: links into their network namespaces, with addresses, a way out, and ports of the node.
//!
//! ```text
//! NetworkArguments --plan()--> Wanted::Own(Plan) --reserve(id, name)--> Attached --attach(id, namespace)--> it works
//!                                                                              --release(id)--> nothing is left
//! ```
//!
//! Nothing runs inside of a container for it: all is done from outside, through a descriptor of its namespace. Before
//! anything is made, a record of it lies on disk; it goes last. So whatever fails or dies in between, whoever comes next
//! can take the rest apart: [`Networks::attach`] itself when a step fails, [`Networks::recover`] when the manager was
//! killed.
//!
//! The default bridge is made for the first container that needs it, and goes half a minute after its last one.

mod arguments;
mod attach;
mod lease;
mod plan;
mod port;
mod record;
mod recover;
mod release;
mod reserve;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::io::Errno;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

pub use arguments::{MAX_PORTS, NetworkArguments, NicArguments, NicConfig, OldNetwork, PortArguments};
pub use plan::{Addressing, Nic, Plan, PlanError, Port, Wanted};

use self::record::{Record, Records};
use crate::domain::bridge::{self, BridgeError, Bridges};
use crate::domain::nft::{Firewall, NftError, Protocol};
#[cfg(not(test))]
use crate::fault;
use crate::fault::Fault;
use crate::sys::netlink::{self, Cidr};

/// Number of a container.
pub type Id = u32;

/// Name of the default bridge.
pub const DEFAULT_BRIDGE: &str = "core0";
/// Most containers with a network of their own.
const MAX_CONTAINERS: usize = 1000;
/// How long the default bridge stays without a container. Making it takes as long as making several containers.
const LINGER: Duration = Duration::from_secs(30);

/// Why a container has no network, or still one.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// It cannot be as it is asked for.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// It has one.
    #[error("container {0} has a network already")]
    Exists(Id),
    /// Nothing is reserved, or it was released meanwhile.
    #[error("no network is reserved for container {0}")]
    Released(Id),
    /// No bridge of this name.
    #[error("no bridge {0}")]
    NoBridge(String),
    /// No addresses are given there.
    #[error("bridge {0} gives no addresses: make it with the network dnsmasq, or give the NIC a cidr")]
    NoRange(String),
    /// All addresses are given.
    #[error("bridge {0} has no address left for a container")]
    Full(String),
    /// An address is somebody else's.
    #[error("{address} on bridge {bridge} belongs to {holder}")]
    AddressTaken {
        /// The address, or hardware address.
        address: String,
        /// Where.
        bridge: String,
        /// Whose it is.
        holder: String,
    },
    /// A port of the node is somebody else's.
    #[error("port {port}/{protocol} of the node is taken by {holder}")]
    PortTaken {
        /// The port.
        port: u16,
        /// Of which protocol.
        protocol: Protocol,
        /// Who has it.
        holder: String,
    },
    /// A port of the node is not to be had.
    #[error("port {0}/{1} of the node cannot be held")]
    Port(u16, Protocol, #[source] Errno),
    /// Ports lead nowhere.
    #[error("ports cannot lead to {address}: the node has no address in its network on bridge {bridge}")]
    Unreachable {
        /// The address of the container.
        address: Cidr,
        /// The bridge.
        bridge: String,
    },
    /// Enough.
    #[error("the node has {MAX_CONTAINERS} containers with a network, and makes no more")]
    TooMany,
    /// The kernel says no.
    #[error(transparent)]
    Netlink(#[from] netlink::Error),
    /// There is no default bridge, and it cannot be made.
    #[error("the default bridge {DEFAULT_BRIDGE}: {0}")]
    DefaultBridge(#[source] BridgeError),
    /// Another bridge.
    #[error(transparent)]
    Bridge(#[from] BridgeError),
    /// The firewall stays as it is.
    #[error(transparent)]
    Firewall(#[from] NftError),
    /// A file.
    #[error("{0}")]
    File(PathBuf, #[source] io::Error),
    /// A step that panicked, or a node that ends.
    #[error("the network of container {0} was not finished")]
    Interrupted(Id, #[source] tokio::task::JoinError),
    /// A test says so.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// A test of this module says so.
    #[cfg(test)]
    #[error("step {0} fails, as the test wants")]
    Injected(usize),
}

/// The network of a container, attached or about to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// The NICs, in their order.
    pub nics: Vec<AttachedNic>,
    /// The ports.
    pub ports: Vec<Port>,
    /// What shall be in `/etc/resolv.conf`.
    pub resolv_conf: String,
}

/// An attached NIC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttachedNic {
    /// Name in the container.
    pub name: String,
    /// The bridge.
    pub bridge: String,
    /// Its hardware address.
    pub hardware: [u8; 6],
    /// Its address.
    pub address: Option<Cidr>,
}

impl Attached {
    /// The first address, which is the container's for `/etc/hosts`.
    pub fn address(&self) -> Option<IpAddr> {
        self.nics.iter().find_map(|nic| nic.address).map(|cidr| cidr.address)
    }
}

impl From<&Record> for Attached {
    fn from(record: &Record) -> Self {
        let nics = record.nics.iter().map(|nic| AttachedNic {
            name: nic.name.clone(),
            bridge: nic.bridge.clone(),
            hardware: nic.hardware,
            address: nic.address,
        });
        Attached { nics: nics.collect(), ports: record.ports.clone(), resolv_conf: resolv_conf(record) }
    }
}

/// The DNS servers of all NICs, each once. Without any, resolvers would ask the loopback of the container.
fn resolv_conf(record: &Record) -> String {
    let mut servers: Vec<IpAddr> = Vec::new();
    for server in record.nics.iter().flat_map(|nic| &nic.dns) {
        if !servers.contains(server) && servers.len() < plan::MAX_DNS {
            servers.push(*server);
        }
    }
    servers.iter().map(|server| format!("nameserver {server}\n")).collect()
}

/// The networks of the containers of a node. One per node.
#[derive(Debug)]
pub struct Networks {
    firewall: Arc<Firewall>,
    bridges: Arc<Bridges>,
    records: Records,
    default_bridge: bridge::Plan,
    state: Mutex<State>,
    /// Who reserves something on the default bridge has it shared; who removes the bridge has it alone.
    bridge_use: tokio::sync::RwLock<()>,
    /// Held from looking at all forwards until the firewall has them.
    forwarding: tokio::sync::Mutex<()>,
    linger: Duration,
    /// Told when ports are free.
    released: Notify,
    #[cfg(test)]
    faults: tests::Faults,
}

#[derive(Debug, Default)]
struct State {
    entries: BTreeMap<Id, Entry>,
    /// The address that was last given on a bridge.
    last: HashMap<String, Ipv4Addr>,
    /// Removes the default bridge later on.
    lingering: Option<JoinHandle<()>>,
}

/// A network, from before its first step until after its last one.
#[derive(Debug)]
struct Entry {
    record: Record,
    /// Held by whoever makes it or takes it apart.
    turn: Arc<tokio::sync::Mutex<()>>,
    /// Sockets that hold its ports.
    held: Vec<OwnedFd>,
    /// Its container ends: what it has is free in a moment.
    ending: bool,
    /// Ports that lead there no more, and are held until the rest is gone.
    leaving: Vec<Port>,
}

impl Entry {
    fn new(record: Record) -> Self {
        Self { record, turn: Arc::default(), held: Vec::new(), ending: false, leaving: Vec::new() }
    }
}

impl Networks {
    /// The networks whose records lie in `folder`. `network` is the node's address on the default bridge and its network,
    /// which must be IPv4 and have room for two containers at least.
    pub fn new(
        folder: PathBuf,
        network: Cidr,
        bridges: Arc<Bridges>,
        firewall: Arc<Firewall>,
    ) -> Result<Self, BridgeError> {
        Ok(Networks {
            firewall,
            bridges,
            records: Records::new(folder),
            default_bridge: default_bridge(network)?,
            state: Mutex::default(),
            bridge_use: tokio::sync::RwLock::default(),
            forwarding: tokio::sync::Mutex::default(),
            linger: LINGER,
            released: Notify::default(),
            #[cfg(test)]
            faults: tests::Faults::default(),
        })
    }

    /// The network of a container, unless it is just being made or taken apart.
    pub fn get(&self, id: Id) -> Option<Attached> {
        let state = self.state.lock();
        let entry = state.entries.get(&id)?;
        entry.turn.try_lock().is_ok().then(|| Attached::from(&entry.record))
    }

    /// The containers that use a bridge.
    pub fn users(&self, bridge: &str) -> Vec<Id> {
        let state = self.state.lock();
        state
            .entries
            .values()
            .filter(|entry| entry.record.uses(bridge))
            .map(|entry| entry.record.id)
            .collect()
    }

    /// Gives the firewall the ports of all containers.
    async fn forward(&self) -> Result<(), NetworkError> {
        let _forwarding = self.forwarding.lock().await;
        let forwards: Vec<_> =
            self.state.lock().entries.values().flat_map(|entry| entry.record.forwards()).collect();
        Ok(self.firewall.set_forwards(&forwards).await?)
    }

    /// Every step of attaching passes here before it begins: in tests, one of them fails, or the manager dies there.
    #[cfg(test)]
    async fn step(&self, _what: &'static str) -> Result<(), NetworkError> {
        self.faults.step().await
    }

    #[cfg(not(test))]
    async fn step(&self, what: &'static str) -> Result<(), NetworkError> {
        Ok(fault::step(what)?)
    }
}

/// Who holds something, in an error.
fn named(record: &Record) -> String {
    format!("container {} ({})", record.id, crate::argument::shown(&record.name))
}

/// A bridge whose network is hidden behind the node, with DNS and DHCP.
pub fn default_bridge(network: Cidr) -> Result<bridge::Plan, BridgeError> {
    let refused =
        || BridgeError::Plan(format!("{network} is no IPv4 network for containers, as 172.18.0.1/16"));
    let mask = network.mask().filter(|_| (8..=28).contains(&network.prefix)).ok_or_else(refused)?;
    let IpAddr::V4(first) = network.network() else { return Err(refused()) };
    let last = u32::from(first) | !u32::from(mask);
    let (start, end) = (Ipv4Addr::from(u32::from(first) + 1), Ipv4Addr::from(last - 1));
    let name = DEFAULT_BRIDGE.parse().map_err(BridgeError::Plan)?;
    bridge::Plan::new(name, None, bridge::Mode::Dnsmasq { network, start, end }, true)
}

#[cfg(test)]
mod tests;
