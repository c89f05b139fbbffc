//! The network of a booting machine. [`machine`] says what to do next, and knows no network; [`Search`] does it, with
//! [`edge`] as its hands, and tells all others what comes of it: they see only [`State`].
//!
//! What `/etc/g8os/net.toml` says is set up first. Then DHCP, and at last an address of last resort, are tried on one NIC
//! after the other, until a controller can be reached; without controllers, until there is a route to everywhere.

mod dhcp;
mod edge;
mod keeper;
mod last_resort;
mod machine;
mod nics;
pub mod plan;
mod reach;
mod resolver;
mod search;
mod setting;

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use tokio::sync::watch;

use super::bootstrap::medium::Named;
use crate::sys::netlink::{self, Change, Cidr, Netlink};
use crate::sys::tool::ToolError;
use plan::Endpoint;
use search::{Search, Setup};

/// Where the resolver's file is; the one in `/etc` is a link to it.
const RESOLVER: &str = "/run/resolv.conf";

/// Whether there is a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Not now.
    Searching {
        /// What it waits for.
        why: String,
        /// Where the node can be reached all the same, if somebody is there.
        addresses: Vec<IpAddr>,
    },
    /// There is.
    Up(Up),
}

impl State {
    /// The addresses of this machine.
    pub fn addresses(&self) -> Vec<IpAddr> {
        match self {
            Self::Searching { addresses, .. } => addresses.clone(),
            Self::Up(up) => up.links.iter().map(|(_, address)| address.address).collect(),
        }
    }
}

/// A network that works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Up {
    /// Links and their addresses, the best way out first.
    pub links: Vec<(String, Cidr)>,
    /// The router, when there is one.
    pub gateway: Option<IpAddr>,
    /// The controller that was reached.
    pub controller: Option<String>,
    /// What is wrong all the same.
    pub trouble: Option<String>,
}

impl fmt::Display for Up {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (link, address)) in self.links.iter().enumerate() {
            write!(f, "{}{link} {address}", if place > 0 { ", " } else { "" })?;
            if let Some(gateway) = self.gateway.filter(|_| place == 0) {
                write!(f, " by {gateway}")?;
            }
        }
        if let Some(controller) = &self.controller {
            write!(f, "; controller {controller}")?;
        }
        self.trouble.as_ref().map_or(Ok(()), |trouble| write!(f, "; {trouble}"))
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
    /// The kernel.
    #[error(transparent)]
    Netlink(#[from] netlink::Error),
    /// A tool.
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// A file.
    #[error("cannot write {}: {}", .0.display(), .1)]
    Files(PathBuf, #[source] io::Error),
}

/// An error and its causes, on one line of the console.
fn told(e: &dyn std::error::Error) -> String {
    let mut text = e.to_string();
    let mut cause = e.source();
    while let Some(e) = cause {
        let why = e.to_string();
        // Some say it themselves.
        if !text.ends_with(&why) {
            text = format!("{text}: {why}");
        }
        cause = e.source();
    }
    text
}

/// Sets the loopback up.
pub async fn loopback() -> Result<(), netlink::Error> {
    let netlink = Netlink::open().await?;
    netlink.change(&netlink.link("lo").await?, Change::Up).await
}

/// Begins to search, and goes on in the background. It ends when nobody looks any more.
pub fn start(
    config: PathBuf,
    run: &Path,
    bootstrap: watch::Receiver<Named>,
    told: watch::Receiver<Vec<Endpoint>>,
) -> watch::Receiver<State> {
    let (state, seen) = watch::channel(State::Searching { why: "its turn".into(), addresses: Vec::new() });
    let setup = Setup {
        plan: config,
        kept: run.join("net.toml"),
        files: edge::Files { resolver: RESOLVER.into(), addresses: run.join("network.addresses") },
        bootstrap,
        told,
        ..Setup::default()
    };
    let mut search = Search::new(setup, state.clone());
    tokio::spawn(async move {
        tokio::select! {
            () = state.closed() => {}
            () = search.for_ever() => {}
        }
    });
    seen
}

#[cfg(test)]
mod tests;
