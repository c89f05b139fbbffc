//! Who listens: TCP, UDP and unix sockets, from /proc/net (proc_pid_net(5)), and whose they are.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use schemars::JsonSchema;
use serde::Serialize;

use super::{InfoError, read};
use crate::sys::text;

/// A socket that listens.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Port {
    /// `tcp`, `tcp6`, `udp`, `udp6` or `unix`.
    pub network: String,
    /// Number of the port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Path of a unix socket; a leading `@` marks the abstract namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unix: Option<String>,
    /// Address it listens on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip: Option<IpAddr>,
    /// A process that has it open; 0 when none shows.
    pub pid: u32,
    /// Number of the socket.
    #[serde(skip)]
    #[schemars(skip)]
    inode: u64,
}

/// TCP_LISTEN, and TCP_CLOSE, in which an UDP socket is until it is connected (include/net/tcp_states.h).
const LISTENING: [&str; 2] = ["0A", "07"];
/// `__SO_ACCEPTCON` (include/uapi/linux/net.h).
const ACCEPTS: u64 = 1 << 16;

/// All sockets that listen in the network namespace of the calling thread.
pub fn ports() -> Result<Vec<Port>, InfoError> {
    let mut ports = Vec::new();
    for network in ["tcp", "tcp6", "udp", "udp6"] {
        // A kernel without IPv6 has no such file.
        let Ok(table) = text::read(format!("/proc/thread-self/net/{network}")) else { continue };
        ports.extend(table.lines().skip(1).filter_map(|line| parse_inet(network, line)));
    }
    ports.extend(read("/proc/thread-self/net/unix")?.lines().skip(1).filter_map(parse_unix));
    let owners = owners()?;
    for port in &mut ports {
        port.pid = owners.get(&port.inode).copied().unwrap_or(0);
    }
    Ok(ports)
}

/// `sl local_address rem_address st tx_queue:rx_queue tr:tm->when retrnsmt uid timeout inode ...`
fn parse_inet(network: &str, line: &str) -> Option<Port> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let state = if network.starts_with("tcp") { LISTENING[0] } else { LISTENING[1] };
    if *fields.get(3)? != state {
        return None;
    }
    let (address, port) = fields.get(1)?.split_once(':')?;
    Some(Port {
        network: network.to_owned(),
        port: Some(u16::from_str_radix(port, 16).ok()?),
        unix: None,
        ip: Some(parse_address(address)?),
        pid: 0,
        inode: fields.get(9)?.parse().ok()?,
    })
}

/// Words of 32 bits, each in the order of this machine.
fn parse_address(hex: &str) -> Option<IpAddr> {
    let word = |i: usize| Some(u32::from_str_radix(hex.get(8 * i..8 * i + 8)?, 16).ok()?.to_ne_bytes());
    match hex.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let mut bytes = [0; 16];
            for (i, four) in bytes.chunks_exact_mut(4).enumerate() {
                four.copy_from_slice(&word(i)?);
            }
            Some(Ipv6Addr::from(bytes).into())
        }
        _ => None,
    }
}

/// `Num RefCount Protocol Flags Type St Inode Path`
fn parse_unix(line: &str) -> Option<Port> {
    let mut fields = line.split_whitespace();
    let flags = u64::from_str_radix(fields.nth(3)?, 16).ok()?;
    let inode = fields.nth(2)?.parse().ok()?;
    let path = fields.collect::<Vec<_>>().join(" ");
    if flags & ACCEPTS == 0 || path.is_empty() {
        return None;
    }
    Some(Port { network: "unix".to_owned(), port: None, unix: Some(path), ip: None, pid: 0, inode })
}

/// Process of every socket. Processes that end meanwhile are passed over.
fn owners() -> Result<HashMap<u64, u32>, InfoError> {
    let mut owners = HashMap::new();
    let processes = std::fs::read_dir("/proc").map_err(|e| InfoError::Read("/proc".into(), e))?;
    for process in processes.flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else { continue };
        let Ok(descriptors) = std::fs::read_dir(process.path().join("fd")) else { continue };
        for descriptor in descriptors.flatten() {
            let Ok(target) = std::fs::read_link(descriptor.path()) else { continue };
            let inode =
                target.to_str().and_then(|t| t.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
            if let Some(inode) = inode {
                owners.entry(inode).or_insert(pid);
            }
        }
    }
    Ok(owners)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn sockets_of_this_process_are_found() {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a socket");
        let _unix = UnixListener::bind(&path).unwrap();
        let ports = ports().unwrap();
        let own: Vec<&Port> = ports.iter().filter(|p| p.pid == std::process::id()).collect();
        let inet = |network: &str, port: u16| {
            own.iter().any(|p| {
                p.network == network && p.port == Some(port) && p.ip == Some(Ipv4Addr::LOCALHOST.into())
            })
        };
        assert!(inet("tcp", tcp.local_addr().unwrap().port()), "{own:?}");
        assert!(inet("udp", udp.local_addr().unwrap().port()), "{own:?}");
        assert!(own.iter().any(|p| p.unix.as_deref() == path.to_str()), "{own:?}");
    }

    #[test]
    fn an_ipv6_address_is_put_in_order() {
        let hex = "00000000000000000000000001000000";
        let expected: IpAddr = if cfg!(target_endian = "little") {
            Ipv6Addr::LOCALHOST.into()
        } else {
            "::100:0".parse().unwrap()
        };
        assert_eq!(parse_address(hex), Some(expected));
    }

    #[test]
    fn damaged_lines_are_no_sockets() {
        assert_eq!(parse_inet("tcp", "0: 0100007F:0277 00000000:0000 0A"), None);
        assert_eq!(parse_inet("tcp", "0: 0100007F 00000000:0000 0A 0 0 0 0 0 1"), None);
        assert_eq!(parse_inet("tcp", "0: 01007F:0277 00000000:0000 0A 0 0 0 0 0 1"), None);
        assert_eq!(parse_unix("0: 2 0 00010000 0001 01"), None);
        assert_eq!(parse_unix("0: 2 0 00000000 0001 03 12 /run/connected"), None);
    }
}
