//! Ports of the node that lead to a container.

use std::collections::BTreeSet;
use std::fmt;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

/// What is forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Connections.
    Tcp,
    /// Datagrams.
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        })
    }
}

/// A port of all addresses of the node, and where it leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Forward {
    /// What is forwarded.
    pub protocol: Protocol,
    /// The port of the node.
    pub port: u16,
    /// The address behind a bridge.
    pub to: Ipv4Addr,
    /// The port there.
    pub to_port: u16,
}

/// A script that makes these the forwards of the node, and no others. Connections that are there go on as they began.
pub fn script(forwards: &[Forward]) -> String {
    let mut script = "flush map inet core0 forwards\nflush set inet core0 targets\n".to_owned();
    if forwards.is_empty() {
        return script;
    }
    let elements: Vec<String> =
        forwards.iter().map(|f| format!("{} . {} : {} . {}", f.protocol, f.port, f.to, f.to_port)).collect();
    // Two ports of the node may lead to one of a container.
    let targets: BTreeSet<String> =
        forwards.iter().map(|f| format!("{} . {} . {}", f.to, f.protocol, f.to_port)).collect();
    script += &format!("add element inet core0 forwards {{ {} }}\n", elements.join(", "));
    let targets: Vec<String> = targets.into_iter().collect();
    script += &format!("add element inet core0 targets {{ {} }}\n", targets.join(", "));
    script
}
