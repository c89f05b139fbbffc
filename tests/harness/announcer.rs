//! An mDNS announcement of whatever the test likes, true or not.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use mdns_sd::{IfKind, ServiceDaemon, ServiceInfo};

const SERVICE: &str = "_g8os-flist._tcp.local.";

/// An announcement. Dropping it ends it without a farewell.
pub struct Announcer {
    mdns: ServiceDaemon,
    name: String,
}

impl Announcer {
    /// Says on the network of the calling thread that a gateway listens on `address`.
    #[track_caller]
    pub fn of(address: SocketAddr) -> Self {
        Self::as_version(address, "1")
    }

    /// The same in another version.
    #[track_caller]
    pub fn as_version(address: SocketAddr, version: &str) -> Self {
        let mdns = ServiceDaemon::new().expect("an mDNS daemon starts");
        let no_loopback = mdns.disable_interface(vec![IfKind::LoopbackV4, IfKind::IPv6]);
        no_loopback.expect("it listens to us");
        let id = format!("test-{}-{}", address.port(), address.ip().to_string().replace(['.', ':'], "-"));
        let (host, properties) = (format!("{id}.local."), [("v", version)]);
        let ip: IpAddr = address.ip();
        let mut info = ServiceInfo::new(SERVICE, &id, &host, ip, address.port(), &properties[..])
            .expect("names and numbers are as they must be");
        info.set_requires_probe(false);
        let name = info.get_fullname().to_owned();
        mdns.register(info).expect("it listens to us");
        Self { mdns, name }
    }

    /// Says farewell.
    pub fn farewell(self) {
        if let Ok(said) = self.mdns.unregister(&self.name) {
            let _ = said.recv_timeout(Duration::from_secs(5));
        }
    }
}

impl Drop for Announcer {
    fn drop(&mut self) {
        if let Ok(ended) = self.mdns.shutdown() {
            let _ = ended.recv_timeout(Duration::from_secs(5));
        }
    }
}
