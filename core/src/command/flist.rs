//! `flist.*`: mounts of flists.

use g8_fs::daemon::ClientError;
use g8_fs::engine::{Mode, MountStatus};
use g8_fs::reference::ResolveError;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Command, CommandError, Role, blocking};
use crate::argument::AbsolutePath;
use crate::context::Context;
use crate::domain::flist::{self, FlistError, Plan};

impl From<FlistError> for CommandError {
    fn from(error: FlistError) -> Self {
        let message = error.to_string();
        match error {
            FlistError::Settings(error) => match std::error::Error::source(&error) {
                Some(cause) => CommandError::precondition(message).because(cause.to_string()),
                None => CommandError::precondition(message),
            },
            FlistError::Source(_) | FlistError::Reference(_) | FlistError::Hint(_) => {
                CommandError::bad_request(message)
            }
            FlistError::Name(ResolveError::NoTag(_)) => CommandError::not_found(message),
            FlistError::Name(_) => CommandError::precondition(message),
            FlistError::Daemon(ClientError::Refused(_)) => CommandError::precondition(message),
            FlistError::Daemon(ClientError::Silent(..)) => CommandError::unavailable(message),
            FlistError::Daemon(error) => match std::error::Error::source(&error) {
                Some(cause) => CommandError::internal(message).because(cause.to_string()),
                None => CommandError::internal(message),
            },
            FlistError::Mount(_) => CommandError::not_found(message),
            FlistError::Answer(_) => CommandError::internal(message),
            FlistError::Program(source) => CommandError::internal(message).because(source),
        }
    }
}

/// A mount as `flist mounts --json` shows it: `ref`, `mountpoint`, `mode`, `pid`, `bytes_read`, `hits` and so on.
type Mounted = Map<String, Value>;

fn shown(status: &MountStatus) -> Result<Mounted, CommandError> {
    let failed = |why: String| CommandError::internal("the mount cannot be described").because(why);
    match serde_json::to_value(status) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(other) => Err(failed(format!("it is no object: {other:.64}"))),
        Err(e) => Err(failed(e.to_string())),
    }
}

/// How a mount reaches the kernel.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum ModeName {
    /// As `kernel` where that works, else as `fuse`.
    Auto,
    /// The kernel reads the tree itself.
    Kernel,
    /// Everything goes over FUSE.
    Fuse,
}

impl From<ModeName> for Mode {
    fn from(name: ModeName) -> Self {
        match name {
            ModeName::Auto => Mode::Auto,
            ModeName::Kernel => Mode::Kernel,
            ModeName::Fuse => Mode::Fuse,
        }
    }
}

/// `flist.mount`
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Mount {
    /// The flist: its address, with or without hints, or a tag.
    #[serde(rename = "ref")]
    reference: String,
    /// An existing folder.
    mountpoint: AbsolutePath,
    /// Where blocks come from, in order, as `dir:/store` or `https://host`; what `G8_FROM` says or the node's store, and
    /// then the sources of the bootstrap file, when there is none.
    #[serde(default)]
    from: Vec<String>,
    /// How it reaches the kernel; what `G8_MODE` says, or `auto`, when absent.
    #[serde(default)]
    mode: Option<ModeName>,
    /// Honour set-user-ID and file capabilities in it.
    #[serde(default)]
    suid: bool,
    /// Honour devices in it.
    #[serde(default)]
    dev: bool,
}

impl Command for Mount {
    const NAME: &'static str = "flist.mount";
    const SUMMARY: &'static str = "Mounts an flist on a folder.";
    const ROLE: Role = Role::Admin;
    const IDEMPOTENT: bool = false;
    type Output = Mounted;

    async fn run(self, context: &Context) -> Result<Mounted, CommandError> {
        let flists = context.node.domains.flists.clone();
        let plan = Plan {
            reference: self.reference,
            mountpoint: self.mountpoint.to_path_buf(),
            sources: self.from,
            told: context.node.told_sources(),
            mode: self.mode.map(Into::into),
            suid: self.suid,
            dev: self.dev,
        };
        shown(&blocking(move || flists.mount(plan)).await?)
    }
}

/// `flist.umount`
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Umount {
    /// Where it is mounted.
    mountpoint: AbsolutePath,
    /// Detach it although it is in use.
    #[serde(default)]
    lazy: bool,
}

impl Command for Umount {
    const NAME: &'static str = "flist.umount";
    const SUMMARY: &'static str = "Ends a mount of an flist.";
    const ROLE: Role = Role::Admin;
    const IDEMPOTENT: bool = false;
    type Output = ();

    async fn run(self, context: &Context) -> Result<(), CommandError> {
        let flists = context.node.domains.flists.clone();
        blocking(move || flists.unmount(&self.mountpoint, self.lazy)).await
    }
}

/// `flist.list`
#[derive(Debug, Deserialize, JsonSchema)]
pub struct List {}

impl Command for List {
    const NAME: &'static str = "flist.list";
    const SUMMARY: &'static str = "Lists the mounts of flists.";
    const ROLE: Role = Role::Read;
    const IDEMPOTENT: bool = true;
    type Output = Vec<Mounted>;

    async fn run(self, _context: &Context) -> Result<Self::Output, CommandError> {
        blocking(flist::list).await?.iter().map(shown).collect()
    }
}

/// `flist.info`
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Info {
    /// Where it is mounted.
    mountpoint: AbsolutePath,
}

impl Command for Info {
    const NAME: &'static str = "flist.info";
    const SUMMARY: &'static str = "Describes a mount of an flist.";
    const ROLE: Role = Role::Read;
    const IDEMPOTENT: bool = true;
    type Output = Mounted;

    async fn run(self, _context: &Context) -> Result<Mounted, CommandError> {
        shown(&blocking(move || flist::info(&self.mountpoint)).await?)
    }
}
