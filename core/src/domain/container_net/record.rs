//! What the node keeps of an attached network, in a file of its own: all that is needed to take it apart again.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::lease::Salt;
use super::{Id, NetworkError, Port};
use crate::domain::nft::Forward;
use crate::sys::netlink::Cidr;
use crate::sys::text;

/// The network of one container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The container.
    pub id: Id,
    /// What people call it.
    pub name: String,
    /// Its NICs, in their order.
    pub nics: Vec<NicRecord>,
    /// Ports of the node that lead to it.
    pub ports: Vec<Port>,
    /// Where they lead to.
    pub target: Option<Target>,
}

/// One NIC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NicRecord {
    /// Name of the link at the bridge.
    pub link: String,
    /// Hardware address of the link at the bridge: what has another one is none of ours.
    pub link_hardware: [u8; 6],
    /// The bridge.
    pub bridge: String,
    /// Name in the container.
    pub name: String,
    /// Hardware address in the container.
    pub hardware: [u8; 6],
    /// Its address.
    #[serde(with = "cidr")]
    pub address: Option<Cidr>,
    /// Where packets for other networks go.
    pub gateway: Option<IpAddr>,
    /// DNS servers that it leads to.
    pub dns: Vec<IpAddr>,
}

/// The NIC that ports lead to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// Its bridge.
    pub bridge: String,
    /// Its address.
    pub address: Ipv4Addr,
}

impl Record {
    /// What the firewall shall do.
    pub fn forwards(&self) -> impl Iterator<Item = Forward> + '_ {
        let target = self.target.as_ref().map(|target| target.address);
        self.ports.iter().zip(target.into_iter().cycle()).map(|(port, to)| Forward {
            protocol: port.protocol,
            port: port.host,
            to,
            to_port: port.container,
        })
    }

    /// It uses this bridge.
    pub fn uses(&self, bridge: &str) -> bool {
        self.nics.iter().any(|nic| nic.bridge == bridge)
    }
}

/// The files of all attached networks.
#[derive(Debug)]
pub struct Records {
    folder: PathBuf,
}

impl Records {
    pub fn new(folder: PathBuf) -> Self {
        Records { folder }
    }

    /// Writes a record, as a whole or not at all.
    pub fn write(&self, record: &Record) -> Result<(), NetworkError> {
        let path = self.path(record.id);
        let write = || {
            self.make_folder()?;
            let whole = self.folder.join(format!("{}.new", record.id));
            fs::write(&whole, serde_json::to_vec(record)?)?;
            fs::rename(&whole, &path)
        };
        write().map_err(|e| NetworkError::File(path.clone(), e))
    }

    /// Removes a record; what is not there is gone already.
    pub fn remove(&self, id: Id) -> Result<(), NetworkError> {
        for path in [self.folder.join(format!("{id}.new")), self.path(id)] {
            gone(&path)?;
        }
        Ok(())
    }

    /// All records. A file that is none is logged and left out.
    pub fn all(&self) -> Result<Vec<Record>, NetworkError> {
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(NetworkError::File(self.folder.clone(), e)),
        };
        let mut records = Vec::new();
        for path in entries.flatten().map(|entry| entry.path()) {
            match path.extension().and_then(|e| e.to_str()) {
                Some("json") => {}
                // Of a manager that was killed between writing and naming it: nothing was made of it.
                Some("new") => {
                    gone(&path)?;
                    continue;
                }
                Some(_) | None => continue,
            }
            match self.read(&path) {
                Ok(record) => records.push(record),
                Err(error) => {
                    tracing::error!(file = %path.display(), %error, "the record of a network is no record");
                }
            }
        }
        Ok(records)
    }

    fn read(&self, path: &Path) -> io::Result<Record> {
        let record: Record = serde_json::from_str(&text::read(path)?)?;
        if path != self.path(record.id) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it has the name of another"));
        }
        Ok(record)
    }

    /// The salt of this node's hardware addresses, made when there is none.
    pub fn salt(&self) -> Result<Salt, NetworkError> {
        let path = self.folder.join("salt");
        let salt = || {
            match fs::read(&path).map(Salt::try_from) {
                Ok(Ok(salt)) => return Ok(salt),
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                Ok(Err(_)) | Err(_) => {}
            }
            self.make_folder()?;
            let mut salt = Salt::default();
            fs::File::open("/dev/urandom")?.read_exact(&mut salt)?;
            let whole = self.folder.join("salt.whole");
            let mut file =
                fs::File::options().create(true).truncate(true).write(true).mode(0o600).open(&whole)?;
            file.write_all(&salt)?;
            fs::rename(&whole, &path)?;
            Ok(salt)
        };
        salt().map_err(|e| NetworkError::File(path.clone(), e))
    }

    fn make_folder(&self) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)
    }

    fn path(&self, id: Id) -> PathBuf {
        self.folder.join(format!("{id}.json"))
    }
}

fn gone(path: &Path) -> Result<(), NetworkError> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(NetworkError::File(path.to_owned(), e)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// An address as text.
mod cidr {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::sys::netlink::Cidr;

    pub fn serialize<S: Serializer>(cidr: &Option<Cidr>, serializer: S) -> Result<S::Ok, S::Error> {
        cidr.map(|cidr| cidr.to_string()).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Cidr>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| text.parse().map_err(serde::de::Error::custom)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("networks");
        let records = Records::new(folder.clone());
        assert_eq!(records.all().unwrap(), []);
        let nic = NicRecord {
            link: "c7n0".to_owned(),
            link_hardware: [0xfe, 1, 2, 3, 4, 5],
            bridge: "core0".to_owned(),
            name: "eth0".to_owned(),
            hardware: [2, 1, 2, 3, 4, 5],
            address: Some("172.18.0.2/16".parse().unwrap()),
            gateway: Some([172, 18, 0, 1].into()),
            dns: vec![[172, 18, 0, 1].into()],
        };
        let port = Port { protocol: crate::domain::nft::Protocol::Udp, host: 53, container: 5353 };
        let target = Target { bridge: "core0".to_owned(), address: [172, 18, 0, 2].into() };
        let record = Record {
            id: 7,
            name: "\"\n".to_owned(),
            nics: vec![nic],
            ports: vec![port],
            target: Some(target),
        };
        records.write(&record).unwrap();
        fs::write(folder.join("8.json"), "{\"id\":8").unwrap();
        fs::write(folder.join("9.new"), "").unwrap();
        fs::copy(folder.join("7.json"), folder.join("6.json")).unwrap();
        assert_eq!(records.all().unwrap(), std::slice::from_ref(&record));
        assert!(!folder.join("9.new").exists());
        assert_eq!(record.forwards().map(|f| (f.port, f.to_port)).collect::<Vec<_>>(), [(53, 5353)]);
        records.remove(7).unwrap();
        records.remove(7).unwrap();
        assert_eq!(records.all().unwrap(), []);
    }

    #[test]
    fn the_salt_stays_and_is_nobody_elses() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::new(dir.path().join("a"));
        let salt = records.salt().unwrap();
        assert_eq!(records.salt().unwrap(), salt);
        assert_ne!(Records::new(dir.path().join("b")).salt().unwrap(), salt);
        // A file that was cut off is made anew.
        fs::write(dir.path().join("a/salt"), "short").unwrap();
        assert_ne!(records.salt().unwrap(), salt);
    }
}
