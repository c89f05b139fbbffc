//! The files of a bridge, in one folder: what it is, and what its dnsmasq needs.

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{BridgeError, Mode, Plan};
use crate::sys::netlink::Cidr;
use crate::sys::text;

/// The files of all bridges.
#[derive(Debug)]
pub struct Records {
    folder: PathBuf,
}

/// The files of one dnsmasq.
#[derive(Clone, Debug)]
pub struct Files {
    /// Its pid.
    pub pid: PathBuf,
    /// What it gave to whom.
    pub leases: PathBuf,
}

/// How far a bridge is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// Some of it may be there.
    Making,
    /// All of it is there.
    Made,
    /// Some of it may be gone.
    Removing,
}

/// A plan as it lies on disk.
#[derive(Serialize, Deserialize)]
struct Stored {
    stage: Stage,
    name: String,
    address: Option<[u8; 6]>,
    network: Option<String>,
    range: Option<(Ipv4Addr, Ipv4Addr)>,
    nat: bool,
}

impl Records {
    pub fn new(folder: PathBuf) -> Self {
        Records { folder }
    }

    pub fn files(&self, name: &str) -> Files {
        Files { pid: self.path(name, "pid"), leases: self.path(name, "leases") }
    }

    /// Writes what a bridge is, as a whole or not at all.
    pub fn write(&self, plan: &Plan, stage: Stage) -> Result<(), BridgeError> {
        let range = match plan.mode {
            Mode::Dnsmasq { start, end, .. } => Some((start, end)),
            Mode::None | Mode::Static { .. } => None,
        };
        let stored = Stored {
            stage,
            name: plan.name.to_string(),
            address: plan.address,
            network: plan.mode.network().map(|network| network.to_string()),
            range,
            nat: plan.nat,
        };
        let path = self.path(&plan.name, "json");
        let write = || {
            fs::DirBuilder::new().recursive(true).mode(0o755).create(&self.folder)?;
            let whole = self.path(&plan.name, "new");
            fs::write(&whole, serde_json::to_vec(&stored)?)?;
            fs::rename(&whole, &path)
        };
        write().map_err(|e| BridgeError::File(path.clone(), e))
    }

    /// What a bridge is, when it is one of ours.
    pub fn read(&self, name: &str) -> Result<Option<(Plan, Stage)>, BridgeError> {
        let path = self.path(name, "json");
        match text::read(&path) {
            Ok(text) => decode(&text).map(Some).map_err(|e| BridgeError::File(path, e)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(BridgeError::File(path, e)),
        }
    }

    /// All bridges of ours. A file that is none is logged and left out.
    pub fn all(&self) -> Result<Vec<(Plan, Stage)>, BridgeError> {
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(BridgeError::File(self.folder.clone(), e)),
        };
        let mut plans = Vec::new();
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some(name) = name.strip_suffix(".json") else { continue };
            match self.read(name) {
                Ok(plan) => plans.extend(plan),
                Err(error) => tracing::error!(bridge = name, %error, "the record of a bridge is no record"),
            }
        }
        Ok(plans)
    }

    /// Removes all files of a bridge, what it is last.
    pub fn remove(&self, name: &str) -> Result<(), BridgeError> {
        let Files { pid, leases } = self.files(name);
        for path in [pid, leases, self.path(name, "json")] {
            match fs::remove_file(&path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(BridgeError::File(path, e)),
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }

    fn path(&self, name: &str, kind: &str) -> PathBuf {
        self.folder.join(format!("{name}.{kind}"))
    }
}

fn decode(text: &str) -> io::Result<(Plan, Stage)> {
    let damaged = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
    let stored: Stored = serde_json::from_str(text)?;
    let network = stored.network.map(|text| text.parse::<Cidr>()).transpose();
    let network = network.map_err(|e| damaged(e.to_string()))?;
    let mode = match (network, stored.range) {
        (None, _) => Mode::None,
        (Some(network), None) => Mode::Static { network },
        (Some(network), Some((start, end))) => Mode::Dnsmasq { network, start, end },
    };
    let name = stored.name.parse().map_err(damaged)?;
    let plan = Plan::new(name, stored.address, mode, stored.nat).map_err(|e| damaged(e.to_string()))?;
    Ok((plan, stored.stage))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::new(dir.path().join("bridges"));
        assert_eq!(records.all().unwrap(), []);
        let network = "10.0.0.1/24".parse().unwrap();
        let mode = Mode::Dnsmasq { network, start: [10, 0, 0, 2].into(), end: [10, 0, 0, 9].into() };
        let served = Plan::new("br0".parse().unwrap(), Some([2, 0, 0, 0, 0, 1]), mode, true).unwrap();
        let fixed = Plan::new("br.1".parse().unwrap(), None, Mode::Static { network }, false).unwrap();
        for plan in [&served, &fixed] {
            for stage in [Stage::Making, Stage::Made, Stage::Removing] {
                records.write(plan, stage).unwrap();
                assert_eq!(records.read(&plan.name).unwrap(), Some((plan.clone(), stage)));
            }
        }
        fs::write(dir.path().join("bridges/br9.json"), "{\"name\":\"br9\"").unwrap();
        assert!(records.read("br9").is_err());
        assert_eq!(records.all().unwrap().len(), 2);
        records.remove("br0").unwrap();
        assert_eq!(records.read("br0").unwrap(), None);
        records.remove("br0").unwrap();
    }
}
