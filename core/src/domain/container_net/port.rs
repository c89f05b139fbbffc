//! Ports of the node that are forwarded: each is held by a socket of our own, so that nobody else listens there, now or
//! later, and is never heard.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt};

use super::{NetworkError, Port};
use crate::domain::info;
use crate::domain::nft::Protocol;
use crate::sys::text;

/// Holds ports, or none.
pub fn hold(ports: &[Port]) -> Result<Vec<OwnedFd>, NetworkError> {
    ports.iter().map(|port| hold_one(*port)).collect()
}

fn hold_one(port: Port) -> Result<OwnedFd, NetworkError> {
    socket(port).map_err(|error| match error {
        Errno::ADDRINUSE => taken(port, holder(port)),
        error => NetworkError::Port(port.host, port.protocol, error),
    })
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

fn holder(port: Port) -> String {
    let network = port.protocol.to_string();
    let sockets = match info::ports() {
        Ok(sockets) => sockets,
        Err(error) => return format!("somebody: looking for whom failed, {error}"),
    };
    let found =
        sockets.iter().find(|s| s.port == Some(port.host) && s.network.trim_end_matches('6') == network);
    match found.map(|socket| socket.pid) {
        Some(0) => "a process that does not show".to_owned(),
        Some(pid) => {
            let name = text::read(format!("/proc/{pid}/comm")).unwrap_or_default();
            format!("process {pid} ({})", name.trim())
        }
        // Nobody listens: a connection has it as the port of its own end.
        None => "a connection of the node".to_owned(),
    }
}
