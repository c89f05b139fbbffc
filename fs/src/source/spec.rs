//! Spec strings (`dir:PATH`, `http://HOST`, `ipfs:URL`) and what they open.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Instant;

use g8_cache::{BlockId, MAX_SOURCES, Origin, Source, Sources};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::car::{Car, CarError, CarSource};
use super::dir::{DirSource, DirStore};
use super::http::{BadAddress, ClientError, Gateway, HttpSource};
use super::ipfs::IpfsSource;
use super::peer::{self, PeerError, PeerSource};
use crate::ipfs::{BadRpcAddress, RpcAddress};
use crate::reference::Reach;
use crate::reference::public::NotPublic;

/// A parsed source or sink. As text it is for people, without credentials; serialized it has them, for other processes of
/// ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Spec {
    /// A folder with one file per block.
    Dir(PathBuf),
    /// A CARv1 archive.
    Car(PathBuf),
    /// A trustless gateway.
    Http(Gateway),
    /// The same, named by a reference and not by the user: it is followed to public addresses only.
    Hint(Gateway),
    /// The RPC of an IPFS node.
    Ipfs(RpcAddress),
    /// The neighbours on the local network.
    Peer,
}

/// Why a spec string names no source.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    /// The scheme in front of the colon is not known.
    #[error(
        "unknown source {0:?}: a source is dir:PATH, car:FILE, http://HOST, https://HOST, ipfs:URL or peer:"
    )]
    Unknown(String),
    /// `peer:` takes nothing.
    #[error("source {0:?}: neighbours are found by themselves, write just peer:")]
    Peer(String),
    /// They cannot be looked for.
    #[error(transparent)]
    Peers(#[from] PeerError),
    /// `dir:` needs a path.
    #[error("source {0:?} names no folder: write dir:PATH")]
    NoPath(String),
    /// `car:` needs a path.
    #[error("source {0:?} names no file: write car:FILE")]
    NoFile(String),
    /// The archive cannot be used.
    #[error(transparent)]
    Car(#[from] CarError),
    /// Only archives are asked, and they have other flists.
    #[error("the CAR {car} has no block {id}; {}", its_roots(.roots))]
    NoRoot {
        /// The first archive.
        car: PathBuf,
        /// What is wanted.
        id: BlockId,
        /// What its header names.
        roots: Vec<cid::Cid>,
    },
    /// The URL is not one of a gateway.
    #[error(transparent)]
    Address(#[from] BadAddress),
    /// A stranger's advice comes without credentials.
    #[error("source hint:{0} has credentials, which only a source without hint: may have")]
    Credentials(Gateway),
    /// The URL is not one of a node.
    #[error(transparent)]
    Rpc(#[from] BadRpcAddress),
    /// A hint leads where it may not.
    #[error("source hint:{0} is not followed: name it without hint: if you trust it")]
    Private(Gateway, #[source] NotPublic),
    /// There is no client for it.
    #[error("source {0}")]
    Client(Spec, #[source] ClientError),
    /// Too many of them.
    #[error("{0} sources given, at most {MAX_SOURCES} can be asked")]
    TooMany(usize),
    /// None at all.
    #[error("no source given")]
    None,
}

impl FromStr for Spec {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        match text.split_once(':') {
            Some(("dir", "")) => Err(SpecError::NoPath(text.into())),
            Some(("dir", path)) => Ok(Spec::Dir(PathBuf::from(path))),
            Some(("car", "")) => Err(SpecError::NoFile(text.into())),
            Some(("car", path)) => Ok(Spec::Car(PathBuf::from(path))),
            Some(("http" | "https", _)) => Ok(Spec::Http(text.parse()?)),
            Some(("peer", "")) => Ok(Spec::Peer),
            Some(("peer", rest)) if !rest.contains('@') => Err(SpecError::Peer(text.into())),
            Some(("hint", url)) => match url.parse::<Gateway>()? {
                gateway if gateway.has_credentials() => Err(SpecError::Credentials(gateway)),
                gateway => Ok(Spec::Hint(gateway)),
            },
            Some(("ipfs", url)) => Ok(Spec::Ipfs(url.parse()?)),
            // Credentials stand before an @.
            Some((scheme, rest)) if rest.contains('@') => Err(SpecError::Unknown(format!("{scheme}:..."))),
            Some(_) | None => Err(SpecError::Unknown(text.into())),
        }
    }
}

impl std::fmt::Display for Spec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Spec::Dir(path) => write!(f, "dir:{}", path.display()),
            Spec::Car(path) => write!(f, "car:{}", path.display()),
            Spec::Http(gateway) => write!(f, "{gateway}"),
            Spec::Hint(gateway) => write!(f, "hint:{gateway}"),
            Spec::Ipfs(address) => write!(f, "ipfs:{address}"),
            Spec::Peer => f.write_str(peer::SPEC),
        }
    }
}

impl Serialize for Spec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            // A hint has no credentials.
            Spec::Dir(_) | Spec::Car(_) | Spec::Hint(_) | Spec::Peer => serializer.collect_str(self),
            Spec::Http(gateway) => serializer.serialize_str(gateway.with_credentials()),
            Spec::Ipfs(address) => {
                serializer.collect_str(&format_args!("ipfs:{}", address.with_credentials()))
            }
        }
    }
}

impl<'de> Deserialize<'de> for Spec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl Spec {
    /// The same spec with its path made absolute, so that it means the same in another process.
    pub fn absolute(self) -> std::io::Result<Self> {
        match self {
            Spec::Dir(path) => Ok(Spec::Dir(std::path::absolute(path)?)),
            Spec::Car(path) => Ok(Spec::Car(std::path::absolute(path)?)),
            Spec::Http(_) | Spec::Hint(_) | Spec::Ipfs(_) | Spec::Peer => Ok(self),
        }
    }

    /// Opens it.
    pub fn open(&self, options: SourceOptions) -> Result<Arc<Source>, SpecError> {
        let origin: Arc<dyn Origin> = match self {
            Spec::Dir(path) => {
                Arc::new(DirSource::new(self.to_string(), DirStore::new(path), options.cache_local))
            }
            Spec::Car(path) => {
                let car = Car::open(path, options.open_by)?;
                Arc::new(CarSource::new(self.to_string(), car, options.cache_local))
            }
            Spec::Http(gateway) => self.gateway(gateway, Reach::Anywhere)?,
            Spec::Hint(gateway) => {
                gateway.judge().map_err(|refused| SpecError::Private(gateway.clone(), refused))?;
                self.gateway(gateway, Reach::Public)?
            }
            Spec::Ipfs(address) => {
                let source = IpfsSource::new(address);
                Arc::new(source.map_err(|error| SpecError::Client(self.clone(), error))?)
            }
            Spec::Peer => Arc::new(PeerSource::new()?),
        };
        Ok(Arc::new(Source::new(origin)))
    }

    fn gateway(&self, gateway: &Gateway, reach: Reach) -> Result<Arc<dyn Origin>, SpecError> {
        let source = HttpSource::new(self.to_string(), gateway, reach);
        Ok(Arc::new(source.map_err(|error| SpecError::Client(self.clone(), error))?))
    }

    /// What of this machine is read for it.
    pub fn local_path(&self) -> Option<&Path> {
        match self {
            Spec::Dir(path) | Spec::Car(path) => Some(path),
            Spec::Http(_) | Spec::Hint(_) | Spec::Ipfs(_) | Spec::Peer => None,
        }
    }

    /// Whether others run it, behind a network.
    pub fn is_remote(&self) -> bool {
        match self {
            Spec::Dir(_) | Spec::Car(_) => false,
            Spec::Http(_) | Spec::Hint(_) | Spec::Ipfs(_) | Spec::Peer => true,
        }
    }
}

/// How blocks of a source are treated.
#[derive(Clone, Copy, Debug, Default)]
pub struct SourceOptions {
    /// Copy blocks of stores on this machine into the disk tier too, as if they were far away.
    pub cache_local: bool,
    /// When opening them must be done. An archive is read whole.
    pub open_by: Option<Instant>,
}

/// Opens `specs` in the order they are to be asked.
pub fn open_sources(specs: &[Spec], options: SourceOptions) -> Result<Sources, SpecError> {
    if specs.is_empty() {
        return Err(SpecError::None);
    }
    if specs.len() > MAX_SOURCES {
        return Err(SpecError::TooMany(specs.len()));
    }
    listed(specs.iter().map(|spec| spec.open(options)).collect::<Result<_, _>>()?)
}

/// The same for who goes on with what was asked before, and those that it asks now: one that cannot be opened any more is left
/// out, and told of in the log, unless none is left.
pub fn open_sources_left(specs: &[Spec], options: SourceOptions) -> Result<(Vec<Spec>, Sources), SpecError> {
    let (mut left, mut opened, mut refused) = (Vec::new(), Vec::new(), Vec::new());
    for spec in specs {
        match spec.open(options) {
            Ok(source) => {
                left.push(spec.clone());
                opened.push(source);
            }
            Err(error) => refused.push((spec, error)),
        }
    }
    if left.is_empty() {
        return Err(refused.pop().map_or(SpecError::None, |(_, error)| error));
    }
    for (source, error) in refused {
        let error: &dyn std::error::Error = &error;
        tracing::warn!(%source, error, "a source cannot be opened again: it is asked no more");
    }
    Ok((left, listed(opened)?))
}

fn listed(opened: Vec<Arc<Source>>) -> Result<Sources, SpecError> {
    if opened.len() > MAX_SOURCES {
        return Err(SpecError::TooMany(opened.len()));
    }
    let sources = Sources::new(opened);
    follow_neighbours(&sources)?;
    Ok(sources)
}

/// Has neighbours come and go behind the `peer:` of a list, if it has one.
pub fn follow_neighbours(sources: &Sources) -> Result<(), SpecError> {
    Ok(peer::follow(sources)?)
}

/// The same for whoever wants the flist `root`: where nothing but archives is asked, one of them must have it.
pub fn open_sources_of(root: BlockId, specs: &[Spec], options: SourceOptions) -> Result<Sources, SpecError> {
    let sources = open_sources(specs, options)?;
    let mut other = None;
    for spec in specs {
        let Spec::Car(path) = spec else { return Ok(sources) };
        // It is open already.
        let car = Car::open(path, options.open_by)?;
        if car.index().find(&root).is_some() || car.index().find_damaged(&root).is_some() {
            return Ok(sources);
        }
        other.get_or_insert((path, car));
    }
    match other {
        Some((path, car)) => {
            Err(SpecError::NoRoot { car: path.clone(), id: root, roots: car.index().roots().to_vec() })
        }
        None => Ok(sources),
    }
}

fn its_roots(roots: &[cid::Cid]) -> String {
    const TOLD: usize = 8;
    let told: Vec<String> = roots.iter().take(TOLD).map(cid::Cid::to_string).collect();
    match roots.len() {
        0 => "it names no roots".into(),
        count @ ..=TOLD => {
            format!("its {} {}", if count == 1 { "root is" } else { "roots are" }, told.join(", "))
        }
        count => format!("its roots are {} and {} more", told.join(", "), count - TOLD),
    }
}

/// The store used when no source or sink is named: `$XDG_DATA_HOME/g8os/store`, or below `~/.local/share`.
pub fn default_store() -> Option<Spec> {
    Some(Spec::Dir(data_folder()?.join("store")))
}

/// Where what a user keeps lies: `$XDG_DATA_HOME/g8os`, or below `~/.local/share`.
pub(crate) fn data_folder() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let data = set("XDG_DATA_HOME").or_else(|| Some(set("HOME")?.join(".local/share")))?;
    Some(data.join("g8os"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specs_are_told_apart() {
        assert_eq!("dir:/a:b".parse::<Spec>().unwrap(), Spec::Dir("/a:b".into()));
        assert_eq!("car:a.car".parse::<Spec>().unwrap(), Spec::Car("a.car".into()));
        assert!(matches!("https://host/a".parse().unwrap(), Spec::Http(_)));
        assert_eq!("peer:".parse::<Spec>().unwrap(), Spec::Peer);
        assert!(matches!("hint:https://host/a".parse().unwrap(), Spec::Hint(_)));
        assert_eq!("ipfs:".parse::<Spec>().unwrap().to_string(), "ipfs:http://127.0.0.1:5001");
        for bad in [
            "",
            "dir",
            "dir:",
            "car:",
            "hint:x",
            "hint:http://me:secret@host",
            "ipfs",
            "ipfs:x",
            "ipfs://cid",
            "ftp://x",
            "peer",
            "peer:x",
            "/path",
            "http:",
            "http://",
            "https://host:port",
        ] {
            bad.parse::<Spec>().unwrap_err();
        }
    }

    #[test]
    fn credentials_travel_to_the_daemon_and_nowhere_else() {
        for (spec, shown) in [
            ("http://me:secret@host", "http://host Http(http://host)"),
            ("ipfs:http://me:secret@host", "ipfs:http://host Ipfs(http://host)"),
        ] {
            let spec: Spec = spec.parse().unwrap();
            assert_eq!(format!("{spec} {spec:?}"), shown);
            let json = serde_json::to_string(&spec).unwrap();
            assert!(json.contains("me:secret@"), "{json}");
            assert_eq!(serde_json::from_str::<Spec>(&json).unwrap(), spec);
        }
        let error = "htps://me:secret@host".parse::<Spec>().unwrap_err().to_string();
        assert!(!error.contains("secret"), "{error}");
    }
}
