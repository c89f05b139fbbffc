//! Where things are when nobody says.

use std::path::PathBuf;

use anyhow::{Context, bail};
use g8_fs::engine::EngineConfig;
use g8_fs::source::{Spec, default_store};

use crate::cli::Global;

/// The sources of a command: `--from`, else the default store.
pub fn sources(global: &Global) -> anyhow::Result<Vec<Spec>> {
    Ok(global.settings().sources()?)
}

/// The folder that blocks are written to: `--to`, else the default store.
pub fn sink(global: &Global) -> anyhow::Result<PathBuf> {
    let spec = match global.to.as_slice() {
        [] => default_store().context("neither --to nor HOME is set: say where blocks go")?,
        [one] => one.clone().absolute()?,
        more => bail!("{} sinks given, pack writes to one: publish to the others afterwards", more.len()),
    };
    match spec {
        Spec::Dir(path) => Ok(path),
        Spec::Car(_) | Spec::Ipfs(_) => {
            bail!("pack cannot write {spec}: pack with --to dir:PATH, then `flist publish CID --to {spec}`")
        }
        Spec::Http(_) | Spec::Hint(_) | Spec::Peer => {
            bail!("{spec} can only be read: name a sink with --to dir:PATH")
        }
    }
}

/// Where to publish: `--to`.
pub fn sinks(global: &Global) -> anyhow::Result<Vec<Spec>> {
    if global.to.is_empty() {
        bail!("nothing says where to publish: name it with --to, such as --to ipfs:, car:FILE or dir:PATH");
    }
    global.to.iter().map(|spec| Ok(spec.clone().absolute()?)).collect()
}

/// The cache folder: `--cache`, else `$XDG_CACHE_HOME/g8os`, else `~/.cache/g8os`.
pub fn cache(global: &Global) -> anyhow::Result<PathBuf> {
    Ok(global.settings().cache()?)
}

/// How the daemon of a cache is set up.
pub fn engine(global: &Global) -> anyhow::Result<EngineConfig> {
    Ok(global.settings().engine()?)
}
