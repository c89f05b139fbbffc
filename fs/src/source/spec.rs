//! Spec strings (`dir:PATH`, `http://HOST`) and what they open.

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use g8_cache::{MAX_SOURCES, Origin, Source, Sources};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::dir::{DirSource, DirStore};
use super::http::{BadAddress, ClientError, Gateway, HttpSource};
use super::peer::{self, PeerError, PeerSource};

/// A parsed source or sink. As text it is for people, without credentials; serialized it has them, for other processes of
/// ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Spec {
    /// A folder with one file per block.
    Dir(PathBuf),
    /// A trustless gateway.
    Http(Gateway),
    /// The neighbours on the local network.
    Peer,
}

/// Why a spec string names no source.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    /// The scheme in front of the colon is not known.
    #[error("unknown source {0:?}: a source is dir:PATH, http://HOST, https://HOST or peer:")]
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
    /// The URL is not one of a gateway.
    #[error(transparent)]
    Address(#[from] BadAddress),
    /// There is no client for it.
    #[error("source {0}")]
    Client(Gateway, #[source] ClientError),
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
            Some(("peer", "")) => Ok(Spec::Peer),
            Some(("peer", rest)) if !rest.contains('@') => Err(SpecError::Peer(text.into())),
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
            Spec::Peer => f.write_str(peer::SPEC),
        }
    }
}

impl Serialize for Spec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Spec::Dir(_) | Spec::Peer => serializer.collect_str(self),
            Spec::Http(gateway) => serializer.serialize_str(gateway.with_credentials()),
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
            Spec::Http(_) | Spec::Peer => Ok(self),
        }
    }

    /// Whether others run it, behind a network.
    pub fn is_remote(&self) -> bool {
        match self {
            Spec::Dir(_) => false,
            Spec::Http(_) | Spec::Peer => true,
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
                Arc::new(source.map_err(|error| SpecError::Client(gateway.clone(), error))?)
            }
            Spec::Peer => Arc::new(PeerSource::new()?),
        };
        list.push(Arc::new(Source::new(origin)));
    }
    let sources = Sources::new(list);
    peer::follow(&sources)?;
    Ok(sources)
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
        assert_eq!("peer:".parse::<Spec>().unwrap(), Spec::Peer);
        for bad in
            ["", "dir", "dir:", "ftp://x", "peer", "peer:x", "/path", "http:", "http://", "https://host:port"]
        {
            bad.parse::<Spec>().unwrap_err();
        }
    }

    #[test]
    fn credentials_travel_to_the_daemon_and_nowhere_else() {
        let spec: Spec = "http://me:secret@host".parse().unwrap();
        assert_eq!(format!("{spec} {spec:?}"), "http://host Http(http://host)");
        let json = serde_json::to_string(&spec).unwrap();
        assert!(json.contains("me:secret@"), "{json}");
        assert_eq!(serde_json::from_str::<Spec>(&json).unwrap(), spec);
        let error = "htps://me:secret@host".parse::<Spec>().unwrap_err().to_string();
        assert!(!error.contains("secret"), "{error}");
    }
}
