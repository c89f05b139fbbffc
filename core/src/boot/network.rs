//! The network of a booting machine, as small as it can be honestly: every NIC is set up, those with a carrier are asked for
//! a lease one by one, the first one that gives one is the network, and its lease is kept. Without one all begins anew, for ever.
//!
//! `/etc/g8os/net.toml`, controllers and the addresses of last resort belong in [`Search`]; whoever waits for the network sees
//! only [`State`].

mod dhcp;
mod resolver;

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::sys::netlink::{self, Change, Cidr, Link, Netlink};
use dhcp::{Client, DhcpError, Lease};

/// How long NICs may take to find out whether something is plugged in.
const CARRIER: Duration = Duration::from_secs(5);
/// How long a server may take to give a lease.
const LEASE: Duration = Duration::from_secs(10);
/// Pauses between two searches, in seconds. A link that changes ends them.
const PAUSE: [u64; 5] = [1, 2, 5, 10, 30];
/// A network that lasted so long was a good one.
const WELL: Duration = Duration::from_secs(60);
/// The kind of links that are hardware.
const HARDWARE: &str = "";
/// Where the resolver's file is; the one in `/etc` is a link to it.
const RESOLVER: &str = "/run/resolv.conf";

/// Whether there is a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Not now; this is what it waits for.
    Searching(String),
    /// By this link.
    Up(Up),
}

/// A network that works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Up {
    /// The name of the link.
    pub link: String,
    /// The address of this machine.
    pub address: Cidr,
    /// The router, when there is one.
    pub gateway: Option<IpAddr>,
}

impl fmt::Display for Up {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.link, self.address)?;
        self.gateway.map_or(Ok(()), |gateway| write!(f, " by {gateway}"))
    }
}

/// Why there is no network.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// No hardware.
    #[error("no NIC: is there a driver for it?")]
    NoNic,
    /// Nothing is plugged in.
    #[error("no carrier on {0}: is a cable plugged in?")]
    NoCarrier(String),
    /// Nobody gives a lease.
    #[error("{0}")]
    NoLease(String),
    /// The kernel.
    #[error(transparent)]
    Netlink(#[from] netlink::Error),
    /// The file of the resolver.
    #[error("cannot write {RESOLVER}: {0}")]
    Resolver(std::io::Error),
}

/// Sets the loopback up.
pub async fn loopback() -> Result<(), netlink::Error> {
    let netlink = Netlink::open().await?;
    netlink.change(&netlink.link("lo").await?, Change::Up).await
}

/// Begins to search, and goes on in the background. It ends when nobody looks any more.
pub fn start() -> watch::Receiver<State> {
    let (state, seen) = watch::channel(State::Searching("its turn".into()));
    let search = Search { kind: HARDWARE, resolver: RESOLVER.into(), state };
    tokio::spawn(async move {
        tokio::select! {
            () = search.state.closed() => {}
            () = search.for_ever() => {}
        }
    });
    seen
}

/// A search for a network.
struct Search {
    /// The kind of links that are NICs.
    kind: &'static str,
    /// Where the file of the resolver is.
    resolver: PathBuf,
    state: watch::Sender<State>,
}

impl Search {
    async fn for_ever(&self) {
        let mut failures = 0;
        loop {
            let began = Instant::now();
            let why = match self.attempt().await {
                Ok(()) => "a new lease: the last one is over".to_owned(),
                Err(e) => e.to_string(),
            };
            failures = if began.elapsed() > WELL { 1 } else { failures + 1 };
            let pause = PAUSE[failures.min(PAUSE.len()) - 1];
            self.state.send_replace(State::Searching(why));
            // Where links cannot be watched, the pause alone decides.
            let change = async {
                match netlink::Changes::open() {
                    Ok(mut changes) => changes.next().await,
                    Err(_) => std::future::pending().await,
                }
            };
            let _ = tokio::time::timeout(Duration::from_secs(pause), change).await;
        }
    }

    /// One search. It returns when a network was found and is lost again.
    async fn attempt(&self) -> Result<(), NetworkError> {
        let mut refused = Vec::new();
        for nic in self.plugged().await? {
            self.state.send_replace(State::Searching(format!("a lease on {}", nic.name)));
            match self.keep(&nic).await {
                Ok(()) => return Ok(()),
                Err(Failed::NoLease(e)) => refused.push(format!("{}: {e}", nic.name)),
                Err(Failed::Other(e)) => refused.push(format!("{}: {e}", nic.name)),
            }
        }
        Err(NetworkError::NoLease(refused.join(", ")))
    }

    /// The NICs that have a carrier, once all have said whether they do.
    async fn plugged(&self) -> Result<Vec<Link>, NetworkError> {
        let deadline = Instant::now() + CARRIER;
        // Before they are set up, so that no change is missed.
        let mut changes = netlink::Changes::open()?;
        loop {
            let nics = self.nics().await?;
            for nic in nics.iter().filter(|nic| !nic.is_up()) {
                // One that is broken is no reason to have no network.
                if let Err(e) = Netlink::open().await?.change(nic, Change::Up).await {
                    tracing::warn!("{} cannot be set up: {e}", nic.name);
                }
            }
            let plugged: Vec<Link> = nics.iter().filter(|nic| nic.carrier).cloned().collect();
            if plugged.len() == nics.len() && !nics.is_empty() {
                return Ok(plugged);
            }
            // A link that changes all the time ends nobody's patience but this one.
            if Instant::now() < deadline && tokio::time::timeout_at(deadline, changes.next()).await.is_ok() {
                continue;
            }
            let names: Vec<&str> = nics.iter().map(|nic| nic.name.as_str()).collect();
            return match (plugged.is_empty(), nics.is_empty()) {
                (_, true) => Err(NetworkError::NoNic),
                (true, false) => Err(NetworkError::NoCarrier(names.join(", "))),
                (false, false) => Ok(plugged),
            };
        }
    }

    /// Links of the right kind that have an address of Ethernet.
    async fn nics(&self) -> Result<Vec<Link>, NetworkError> {
        let links = Netlink::open().await?.links().await?;
        let is_nic = |link: &Link| link.kind == self.kind && link.name != "lo" && link.address.len() == 6;
        Ok(links.into_iter().filter(is_nic).collect())
    }

    /// Gets a lease and keeps it. It returns when it is lost; nothing of it is left then.
    async fn keep(&self, nic: &Link) -> Result<(), Failed> {
        let mut client = Client::new(nic, LEASE).await.map_err(Failed::NoLease)?;
        let mut lease = client.first().await.map_err(Failed::NoLease)?;
        loop {
            if let Err(e) = put(nic, &lease, &self.resolver).await {
                take(nic, &lease).await?;
                return Err(e.into());
            }
            let up = Up { link: nic.name.clone(), address: lease.address, gateway: lease.gateway() };
            self.state.send_replace(State::Up(up));
            let next = client.next(&lease).await;
            take(nic, &lease).await?;
            match next {
                Ok(next) => lease = next,
                Err(e) => {
                    tracing::warn!("the lease of {} is lost: {e}", nic.name);
                    return Ok(());
                }
            }
        }
    }
}

/// Why a NIC is not the network.
enum Failed {
    /// Nobody gave a lease: another one may be.
    NoLease(DhcpError),
    /// Something is wrong with this machine.
    Other(NetworkError),
}

impl<E: Into<NetworkError>> From<E> for Failed {
    fn from(e: E) -> Self {
        Self::Other(e.into())
    }
}

/// Sets a lease up. What is there already stays: an earlier manager may have put it there.
async fn put(nic: &Link, lease: &Lease, resolver: &Path) -> Result<(), NetworkError> {
    let netlink = Netlink::open().await?;
    there(netlink.add_address(nic, lease.address).await)?;
    for (destination, gateway) in &lease.routes {
        there(netlink.add_route(nic, *destination, Some(*gateway)).await)?;
    }
    resolver::write(resolver, &lease.resolvers, &lease.domains).map_err(NetworkError::Resolver)
}

/// Takes a lease back. Its routes go with its address.
async fn take(nic: &Link, lease: &Lease) -> Result<(), NetworkError> {
    match Netlink::open().await?.delete_address(nic, lease.address).await {
        Err(netlink::Error::Refused(_, Errno::ADDRNOTAVAIL | Errno::NODEV)) => Ok(()),
        done => Ok(done?),
    }
}

/// What is there already is as good.
fn there(done: Result<(), netlink::Error>) -> Result<(), netlink::Error> {
    match done {
        Err(netlink::Error::Refused(_, Errno::EXIST)) => Ok(()),
        done => done,
    }
}

#[cfg(test)]
mod tests;
