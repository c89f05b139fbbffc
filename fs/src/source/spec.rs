//! Spec strings (`dir:PATH`) and what they open.

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use g8_cache::{Source, Sources};

use super::dir::{DirSource, DirStore};

/// Most sources one mount may have.
pub const MAX_SOURCES: usize = 16;

/// A parsed source or sink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Spec {
    /// A folder with one file per block.
    Dir(PathBuf),
}

/// Why a spec string names no source.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    /// The scheme in front of the colon is not known.
    #[error("unknown source {0:?}: a source is dir:PATH")]
    Unknown(String),
    /// `dir:` needs a path.
    #[error("source {0:?} names no folder: write dir:PATH")]
    NoPath(String),
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
            _ => Err(SpecError::Unknown(text.into())),
        }
    }
}

impl std::fmt::Display for Spec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Spec::Dir(path) => write!(f, "dir:{}", path.display()),
        }
    }
}

impl Spec {
    /// The same spec with its path made absolute, so that it means the same in another process.
    pub fn absolute(self) -> std::io::Result<Self> {
        match self {
            Spec::Dir(path) => Ok(Spec::Dir(std::path::absolute(path)?)),
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
        let origin = match spec {
            Spec::Dir(path) => DirSource::new(spec.to_string(), DirStore::new(path), options.cache_local),
        };
        list.push(Arc::new(Source::new(Arc::new(origin))));
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
        for bad in ["", "dir", "dir:", "ftp://x", "/path"] {
            bad.parse::<Spec>().unwrap_err();
        }
    }
}
