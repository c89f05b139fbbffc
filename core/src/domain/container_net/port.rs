//! Ports of the node that are forwarded: each is held by a socket of our own, so that nobody else listens there, now or
//! later, and is never heard.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt};

use super::{NetworkError, Port};
use crate::domain::info;
use crate::domain::nft::Protocol;
use crate::sys::text;

/// Who has a port and is in no list.
const HIDDEN: &str = "a process that does not show";
/// How often a port that is taken is tried again, by somebody who shows and by one who does not, and the pause between.
const LOOKS: u32 = 5;
const LOOKS_HIDDEN: u32 = 25;
const PAUSE: Duration = Duration::from_millis(20);

/// Holds ports, or none.
pub async fn hold(ports: &[Port]) -> Result<Vec<OwnedFd>, NetworkError> {
    let mut held = Vec::with_capacity(ports.len());
    for port in ports {
        held.push(hold_one(*port).await?);
    }
    Ok(held)
}

async fn hold_one(port: Port) -> Result<OwnedFd, NetworkError> {
    let mut looks = 0;
    loop {
        match socket(port) {
            Err(Errno::ADDRINUSE) => {
                let holder = tokio::task::spawn_blocking(move || holder(port));
                let holder = holder
                    .await
                    .unwrap_or_else(|error| format!("somebody: looking for whom failed, {error}"));
                // A process that was just forked has a copy of what we released until it is another program.
                if looks >= if holder == HIDDEN { LOOKS_HIDDEN } else { LOOKS } {
                    return Err(taken(port, holder));
                }
                looks += 1;
                tokio::time::sleep(PAUSE).await;
            }
            Err(error) => return Err(NetworkError::Port(port.host, port.protocol, error)),
            Ok(socket) => return Ok(socket),
        }
    }
}

/// The error that says who has a port.
pub fn taken(port: Port, holder: String) -> NetworkError {
    NetworkError::PortTaken { port: port.host, protocol: port.protocol, holder }
}

/// A socket that is never read: what is sent to the port goes to the container before it gets here.
fn socket(port: Port) -> Result<OwnedFd, Errno> {
    let kind = match port.protocol {
        Protocol::Tcp => SocketType::STREAM,
        Protocol::Udp => SocketType::DGRAM,
    };
    let socket = socket_with(AddressFamily::INET, kind, SocketFlags::CLOEXEC, None)?;
    let any = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port.host);
    match port.protocol {
        Protocol::Tcp => {
            // Connections that ended a moment ago are nobody who listens.
            sockopt::set_socket_reuseaddr(&socket, true)?;
            bind(&socket, &any)?;
            // One that does not listen would be no hindrance to one that does.
            listen(&socket, 1)?;
        }
        Protocol::Udp => bind(&socket, &any)?,
    }
    Ok(socket)
}

/// Who has a port. It looks through all of /proc: not on a thread that others need.
fn holder(port: Port) -> String {
    let network = port.protocol.to_string();
    let sockets = match info::ports() {
        Ok(sockets) => sockets,
        Err(error) => return format!("somebody: looking for whom failed, {error}"),
    };
    let found =
        sockets.iter().find(|s| s.port == Some(port.host) && s.network.trim_end_matches('6') == network);
    match found.map(|socket| socket.pid) {
        Some(0) => HIDDEN.to_owned(),
        Some(pid) => {
            let name = text::read(format!("/proc/{pid}/comm")).unwrap_or_default();
            format!("process {pid} ({})", name.trim())
        }
        // Nobody listens: a connection has it as the port of its own end.
        None => "a connection of the node".to_owned(),
    }
}
