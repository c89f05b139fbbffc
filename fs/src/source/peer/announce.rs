//! Being a neighbour: telling the local network where our gateway is, and saying farewell.

use std::fs::File;
use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use mdns_sd::{IfKind, ServiceDaemon, ServiceInfo};

use super::browser::log_trouble;
use super::{SERVICE, VERSION};

/// How long saying farewell may take.
const FAREWELL: Duration = Duration::from_secs(1);

/// Why nothing is announced.
#[derive(Debug, thiserror::Error)]
pub enum AnnounceError {
    /// Nobody else reaches it.
    #[error(
        "{0} can only be reached from this machine: to announce it, --listen on 0.0.0.0:PORT or on an address of a network"
    )]
    Loopback(SocketAddr),
    /// Neighbours ask no ports of other services.
    #[error("neighbours do not ask port {0}: to announce it, --listen on port 80 or one from 1024 on")]
    Port(u16),
    /// No random name.
    #[error("no name to announce ourselves by")]
    Name(#[source] io::Error),
    /// The mDNS library refuses.
    #[error("announcing by mDNS")]
    Mdns(#[from] mdns_sd::Error),
}

/// An announcement. Dropping it says farewell.
pub struct Announcement {
    mdns: ServiceDaemon,
    name: String,
}

impl Announcement {
    /// Whether a gateway that listens on `address` can be announced.
    pub fn check(address: SocketAddr) -> Result<(), AnnounceError> {
        if address.ip().to_canonical().is_loopback() {
            return Err(AnnounceError::Loopback(address));
        }
        match address.port() {
            0 | 80 | 1024.. => Ok(()),
            port => Err(AnnounceError::Port(port)),
        }
    }

    /// Announces the gateway that listens on `address`, on the links it can be reached from: all of them when the address is
    /// unspecified. Interfaces may come and go.
    pub fn start(address: SocketAddr) -> Result<Announcement, AnnounceError> {
        Self::check(address)?;
        let mdns = ServiceDaemon::new()?;
        log_trouble(&mdns);
        match address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => {
                mdns.disable_interface(vec![IfKind::LoopbackV4, IfKind::IPv6])?;
            }
            IpAddr::V6(ip) if ip.is_unspecified() => {
                mdns.disable_interface(vec![IfKind::LoopbackV4, IfKind::LoopbackV6])?;
            }
            ip => {
                mdns.disable_interface(IfKind::All)?;
                mdns.enable_interface(IfKind::Addr(ip))?;
            }
        }
        let id = random_id().map_err(AnnounceError::Name)?;
        let host = format!("g8os-{id}.local.");
        let mut info = match address.ip().is_unspecified() {
            true => {
                ServiceInfo::new(SERVICE, &id, &host, "", address.port(), &[VERSION][..])?.enable_addr_auto()
            }
            false => ServiceInfo::new(SERVICE, &id, &host, address.ip(), address.port(), &[VERSION][..])?,
        };
        // The name is as long as chance, so nobody else has it.
        info.set_requires_probe(false);
        let name = info.get_fullname().to_owned();
        mdns.register(info)?;
        Ok(Announcement { mdns, name })
    }
}

impl Drop for Announcement {
    fn drop(&mut self) {
        // Whoever does not hear it finds out when we do not answer.
        if let Ok(said) = self.mdns.unregister(&self.name) {
            let _ = said.recv_timeout(FAREWELL);
        }
        if let Ok(ended) = self.mdns.shutdown() {
            let _ = ended.recv_timeout(FAREWELL);
        }
    }
}

/// A name for this process, which tells nothing about it.
fn random_id() -> io::Result<String> {
    let mut bytes = [0; 8];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_else_reaches_is_not_announced() {
        for own in ["127.0.0.1:8080", "127.0.0.1:0", "[::1]:8080", "[::ffff:127.0.0.1]:8080"] {
            let refused = Announcement::check(own.parse().unwrap()).unwrap_err();
            assert!(refused.to_string().contains("--listen"), "{refused}");
        }
        assert!(matches!(
            Announcement::check("10.0.0.1:443".parse().unwrap()),
            Err(AnnounceError::Port(443))
        ));
        for good in ["0.0.0.0:8080", "[::]:8080", "10.0.0.1:80", "10.0.0.1:0"] {
            Announcement::check(good.parse().unwrap()).unwrap();
        }
    }
}
