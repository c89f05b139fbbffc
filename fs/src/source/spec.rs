//! Spec strings (`dir:PATH`, `http://HOST`, `ipfs:URL`) and what they open.

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use g8_cache::{Origin, Source, Sources};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::dir::{DirSource, DirStore};
use super::http::{BadAddress, ClientError, Gateway, HttpSource};
use super::ipfs::IpfsSource;
use crate::ipfs::{BadRpcAddress, RpcAddress};

/// Most sources one mount may have.
pub const MAX_SOURCES: usize = 16;

/// A parsed source or sink. As text it is for people, without credentials; serialized it has them, for other processes of
/// ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Spec {
    /// A folder with one file per block.
    Dir(PathBuf),
    /// A trustless gateway.
    Http(Gateway),
    /// The RPC of an IPFS node.
    Ipfs(RpcAddress),
}

/// Why a spec string names no source.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    /// The scheme in front of the colon is not known.
    #[error("unknown source {0:?}: a source is dir:PATH, http://HOST, https://HOST or ipfs:URL")]
    Unknown(String),
    /// `dir:` needs a path.
    #[error("source {0:?} names no folder: write dir:PATH")]
    NoPath(String),
    /// The URL is not one of a gateway.
    #[error(transparent)]
    Address(#[from] BadAddress),
    /// The URL is not one of a node.
    #[error(transparent)]
    Rpc(#[from] BadRpcAddress),
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
            Some(("http" | "https", _)) => Ok(Spec::Http(text.parse()?)),
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
            Spec::Http(gateway) => write!(f, "{gateway}"),
            Spec::Ipfs(address) => write!(f, "ipfs:{address}"),
        }
    }
}

impl Serialize for Spec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Spec::Dir(_) => serializer.collect_str(self),
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
            Spec::Http(_) | Spec::Ipfs(_) => Ok(self),
        }
    }

    /// Whether others run it, behind a network.
    pub fn is_remote(&self) -> bool {
        match self {
            Spec::Dir(_) => false,
            Spec::Http(_) | Spec::Ipfs(_) => true,
        }
    }
}

/// How blocks of a source are treated.
#[derive(Clone, Copy, Debug, Default)]
pub struct SourceOptions {
    /// Copy blocks of stores on this machine into the disk tier too, as if they were far away.
    pub cache_local: bool,
}

/// Opens `specs` in the order they are to be asked.
pub fn open_sources(specs: &[Spec], options: SourceOptions) -> Result<Sources, SpecError> {
    if specs.is_empty() {
        return Err(SpecError::None);
    }
    if specs.len() > MAX_SOURCES {
        return Err(SpecError::TooMany(specs.len()));
    }
    let mut list = Vec::with_capacity(specs.len());
    for spec in specs {
        let origin: Arc<dyn Origin> = match spec {
            Spec::Dir(path) => {
                Arc::new(DirSource::new(spec.to_string(), DirStore::new(path), options.cache_local))
            }
            Spec::Http(gateway) => {
                let source = HttpSource::new(gateway);
                Arc::new(source.map_err(|error| SpecError::Client(spec.clone(), error))?)
            }
            Spec::Ipfs(address) => {
                let source = IpfsSource::new(address);
                Arc::new(source.map_err(|error| SpecError::Client(spec.clone(), error))?)
            }
        };
        list.push(Arc::new(Source::new(origin)));
    }
    Ok(Sources::new(list))
}

/// The store used when no source or sink is named: `$XDG_DATA_HOME/g8os/store`, or below `~/.local/share`.
pub fn default_store() -> Option<Spec> {
    let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let data = set("XDG_DATA_HOME").or_else(|| Some(set("HOME")?.join(".local/share")))?;
    Some(Spec::Dir(data.join("g8os/store")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specs_are_told_apart() {
        assert_eq!("dir:/a:b".parse::<Spec>().unwrap(), Spec::Dir("/a:b".into()));
        assert!(matches!("https://host/a".parse().unwrap(), Spec::Http(_)));
        assert_eq!("ipfs:".parse::<Spec>().unwrap().to_string(), "ipfs:http://127.0.0.1:5001");
        for bad in [
            "",
            "dir",
            "dir:",
            "ftp://x",
            "/path",
            "http:",
            "http://",
            "https://host:port",
            "ipfs",
            "ipfs:x",
            "ipfs://cid",
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
