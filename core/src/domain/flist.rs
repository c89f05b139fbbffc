//! Mounts of flists, by the engine's daemon: the one that `flist` uses too, over the same cache and the same store, with the
//! same settings ([`g8_fs::settings`]).
//!
//! The daemon is a process of its own, and outlives the manager. When none serves the cache, this program is started as
//! one. What a node mounts for its callers is [`Noted`].

mod noted;
pub mod place;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use g8_cache::MAX_SOURCES;
use g8_fs::daemon::{Client, ClientError, Keepsake, MountRequest, Reply, Request, Starter};
use g8_fs::engine::{EngineConfig, Mode, MountError, MountStatus, mountpoint};
use g8_fs::names::Names;
use g8_fs::reference::{BadHint, BadReference, Reference, ResolveError, Resolved, resolve};
use g8_fs::settings::{Settings, SettingsError};
use g8_fs::source::{Spec, SpecError};

use crate::cli::FlistDaemonArgs;
pub use noted::{Noted, ShowError, Told};

/// The role of this program that is the daemon.
pub const ROLE: &str = "flist-daemon";
/// How long the daemon may take beyond the deadline of a read.
const LIMIT: Duration = Duration::from_secs(20);

/// Why an flist is not mounted, or still is.
#[derive(Debug, thiserror::Error)]
pub enum FlistError {
    /// What the node was started with does not say where things are.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// What names the flist is no reference.
    #[error(transparent)]
    Reference(#[from] BadReference),
    /// A name that leads nowhere.
    #[error(transparent)]
    Name(#[from] ResolveError),
    /// A hint that is not followed.
    #[error(transparent)]
    Hint(#[from] BadHint),
    /// A source that is none.
    #[error("{0}")]
    Source(String),
    /// The daemon could not, or is not to be had.
    #[error(transparent)]
    Daemon(#[from] ClientError),
    /// No flist is mounted there.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// The daemon answers something else.
    #[error("the daemon of the flists answered {0} with something else")]
    Answer(&'static str),
    /// This program cannot be started as the daemon.
    #[error("this program does not find itself")]
    Program(#[source] std::io::Error),
}

/// A mount, as callers ask for it.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The flist: its address, or a tag.
    pub reference: String,
    /// An existing folder.
    pub mountpoint: PathBuf,
    /// Where blocks come from; what the settings say when empty, and then `told`.
    pub sources: Vec<String>,
    /// Those that the node was told of, by its bootstrap file.
    pub told: Vec<String>,
    /// How it reaches the kernel; what the settings say when none.
    pub mode: Option<Mode>,
    /// Honour set-user-ID.
    pub suid: bool,
    /// Honour devices.
    pub dev: bool,
}

/// What it leads to, and where its blocks come from, in the order they are asked.
fn sources(plan: &Plan) -> Result<(Settings, Resolved, Vec<Spec>), FlistError> {
    let mut settings = Settings::of_environment()?;
    let read = |texts: &[String]| {
        let read = |text: &String| text.parse().map_err(|e: SpecError| FlistError::Source(e.to_string()));
        texts.iter().map(read).collect::<Result<Vec<Spec>, _>>()
    };
    let told = if plan.sources.is_empty() { read(&plan.told)? } else { Vec::new() };
    if !plan.sources.is_empty() {
        settings.from = read(&plan.sources)?;
    }
    let flist = resolve(&plan.reference.parse::<Reference>()?, Names::of_user().as_ref())?;
    let mut sources = settings.sources()?;
    sources.extend(told);
    sources.extend(flist.hints.gateways(settings.reach)?);
    Ok((settings, flist, sources))
}

/// Mounts an flist.
pub fn mount(plan: Plan) -> Result<MountStatus, FlistError> {
    let (settings, flist, sources) = sources(&plan)?;
    let request = Request::Mount(MountRequest {
        sources,
        reference: flist.id.to_string(),
        mountpoint: plan.mountpoint,
        cache_local: false,
        mode: plan.mode.unwrap_or(settings.mode),
        suid: plan.suid,
        dev: plan.dev,
        // A node mounts for all that runs on it.
        allow_other: true,
        deadline_ms: settings.deadline.as_millis() as u64,
        hold: false,
        profile: flist.hints.profile(),
        record: false,
    });
    let client = Client::new(&settings.cache()?, Some(starter(&settings)?));
    match client.ask(&request, settings.deadline + LIMIT)? {
        (Reply::Mounted(status), _) => Ok(*status),
        _ => Err(FlistError::Answer("a mount")),
    }
}

/// Has a mount that is there already ask all that it would be made with now: what is not among `known`, which it asks. Gives
/// what it asks then; none when nothing was missing. One that asks as many as it can goes on with those.
pub fn add_sources(plan: &Plan, known: &[String]) -> Result<Option<Vec<String>>, FlistError> {
    let (settings, _, sources) = sources(plan)?;
    let mut missing = sources.into_iter().filter(|source| !known.contains(&source.to_string())).peekable();
    if missing.peek().is_none() {
        return Ok(None);
    }
    let mountpoint = mountpoint::own_mount_at(&plan.mountpoint)?.mountpoint;
    let client = Client::new(&settings.cache()?, None);
    let end = Instant::now() + settings.deadline;
    let ask = |request: &Request| {
        let left = end.saturating_duration_since(Instant::now());
        match client.ask(request, left + LIMIT)? {
            (Reply::Sources(sources), _) => {
                Ok(sources.into_iter().map(|source| source.spec.to_string()).collect())
            }
            _ => Err(FlistError::Answer("a change of sources")),
        }
    };
    let mut asked: Vec<String> = known.to_vec();
    for source in missing {
        let name = source.to_string();
        let left = end.saturating_duration_since(Instant::now());
        let add = Request::SourceAdd {
            mountpoint: mountpoint.clone(),
            source,
            deadline_ms: left.as_millis() as u64,
        };
        match ask(&add) {
            Ok(now) => asked = now,
            Err(refused) => {
                // Somebody else has added it, which is as good.
                asked = ask(&Request::SourceList { mountpoint: mountpoint.clone() })?;
                if asked.contains(&name) {
                    continue;
                }
                if asked.len() < MAX_SOURCES {
                    return Err(refused);
                }
                // Those that it asks serve it as well as they served all others until now.
                let mountpoint = mountpoint.display();
                tracing::warn!(%mountpoint, source = name, "a mount asks {MAX_SOURCES} sources, and no more");
                break;
            }
        }
    }
    Ok(Some(asked))
}

/// The mount at a path, and what goes on with it when its daemon has died.
pub fn keep(path: &Path) -> Result<(MountStatus, Keepsake), FlistError> {
    let client = Client::new(&Settings::of_environment()?.cache()?, None);
    match client.keep(path, LIMIT) {
        Ok(kept) => kept.ok_or(FlistError::Answer("what keeps a mount")),
        // It ends when it has nothing to serve.
        Err(ClientError::NotRunning(_)) => Err(MountError::NotMounted(path.to_owned()).into()),
        Err(e) => Err(e.into()),
    }
}

/// Has another daemon go on with a mount whose daemon has died.
pub fn resume(kept: &Keepsake) -> Result<MountStatus, FlistError> {
    let settings = Settings::of_environment()?;
    let client = Client::new(&settings.cache()?, Some(starter(&settings)?));
    client.resume(kept, settings.deadline + LIMIT)?.ok_or(FlistError::Answer("a mount to go on with"))
}

/// This program as the daemon, for who finds none.
pub fn starter(settings: &Settings) -> Result<Starter, FlistError> {
    let mut arguments = vec![ROLE.into()];
    arguments.extend(settings.daemon_arguments()?);
    let program = std::env::current_exe().map_err(FlistError::Program)?;
    Ok(Starter { program, arguments })
}

/// How the daemon is set up that [`mount`] starts: by its arguments alone.
pub fn daemon(args: &FlistDaemonArgs) -> Result<EngineConfig, SettingsError> {
    let FlistDaemonArgs { cache, cache_size, cache_memory } = args.clone();
    Settings { cache: Some(cache), cache_size, cache_memory, ..Settings::default() }.engine()
}

/// Ends a mount; detached at once although it is in use when `lazy`.
pub fn unmount(path: &Path, lazy: bool) -> Result<(), FlistError> {
    let mount = mountpoint::own_mount_at(path)?;
    let request = Request::Umount { mountpoint: mount.mountpoint.clone(), lazy };
    match Client::new(&mount.cache, None).owned_by(mount.owner).ask(&request, LIMIT) {
        Ok((Reply::Done, _)) => Ok(()),
        Ok(_) => Err(FlistError::Answer("an unmount")),
        // Nothing but the entry in the mount table is left.
        Err(ClientError::NotRunning(_)) => Ok(mountpoint::unmount(&mount.mountpoint, true)?),
        Err(e) => Err(e.into()),
    }
}

/// All mounts of this cache.
pub fn list() -> Result<Vec<MountStatus>, FlistError> {
    match Client::new(&Settings::of_environment()?.cache()?, None).ask(&Request::Mounts, LIMIT) {
        Ok((Reply::Mounts(mounts), _)) => Ok(mounts),
        Ok(_) => Err(FlistError::Answer("a question for the mounts")),
        // It ends when it has nothing to serve.
        Err(ClientError::NotRunning(_)) => Ok(Vec::new()),
        Err(e) => Err(e.into()),
    }
}

/// The mount at a path.
pub fn info(path: &Path) -> Result<MountStatus, FlistError> {
    let found = list()?.into_iter().find(|mount| mount.mountpoint == path);
    found.ok_or_else(|| MountError::NotMounted(path.to_owned()).into())
}
