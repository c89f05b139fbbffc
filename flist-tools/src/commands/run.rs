//! `flist run REF -- CMD...`: a throwaway container on an flist.
//!
//! The daemon holds the mount for as long as this process lives; the container lays a layer in memory over it.

use std::ffi::CString;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use g8_fs::daemon::{Client, MountRequest, Reply, Request};
use g8_fs::format::RunConfig;

use crate::cli::{Global, Net, RunArgs};
use crate::commands::mount;
use crate::defaults;
use crate::exit::{Quiet, WithCode};
use crate::session::{Wanted, wanted};
use g8_container::{Command, Network, Spec, Upper, resolve_user};

/// As docker's: what failed before the command could run.
const FAILED: u8 = 125;
/// How long the daemon may take to say something of a mount.
const ANSWERS: Duration = Duration::from_secs(10);
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

pub fn run(global: &Global, args: &RunArgs) -> anyhow::Result<()> {
    let ran =
        wanted(global, &args.reference).and_then(|wanted| contained(global, &wanted, args, Watch::None));
    let (code, _) = ran.map_err(|source| WithCode { code: FAILED, source })?;
    match code {
        0 => Ok(()),
        code => Err(Quiet(u8::try_from(code).unwrap_or(u8::MAX)).into()),
    }
}

/// What is watched while a command runs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Watch {
    /// Nothing.
    None,
    /// Which blocks are read, for the first time and in order.
    Blocks,
}

/// Runs the command in a container; its exit code, and the blocks that were read if they are watched.
pub fn contained(
    global: &Global,
    wanted: &Wanted,
    args: &RunArgs,
    watch: Watch,
) -> anyhow::Result<(i32, Vec<u32>)> {
    if !rustix::process::geteuid().is_root() {
        bail!("run needs root, for its namespaces and mounts");
    }
    let place = tempfile::Builder::new().prefix("flist-run-").tempdir().context("making a mountpoint")?;
    let request = mount::request(global, wanted, place.path(), &args.options)?;
    // The connection holds the mount: it goes when this process does, however it ends.
    let suid = args.options.suid || args.privileged;
    let record = watch == Watch::Blocks;
    let profile = request.profile.filter(|_| !record);
    // Root of the container is somebody else, to whom the mount must be open.
    let request = MountRequest { hold: true, suid, allow_other: true, profile, record, ..request };
    let (status, hold) = mount::mount(global, request)?;
    let config = config(global, &status.mountpoint);
    let spec = config.and_then(|config| spec(args, &config, &status.mountpoint, &status.reference));
    let result = spec.and_then(|(spec, command)| {
        let code = g8_container::run(&spec, &command)?;
        Ok((code, if record { recorded(global, &status.mountpoint)? } else { Vec::new() }))
    });
    drop(hold);
    // The daemon unmounts when it sees the connection end; the directory can go only after that.
    g8_fs::engine::mountpoint::unmount(&status.mountpoint, true)?;
    place.close().context("removing the mountpoint")?;
    result
}

/// Asks the daemon what was read of a mount.
fn recorded(global: &Global, mountpoint: &Path) -> anyhow::Result<Vec<u32>> {
    match ask(global, Request::Recorded { mountpoint: mountpoint.to_owned() })? {
        Reply::Recorded(blocks) => Ok(blocks),
        other => bail!("the daemon answered with {other:?}"),
    }
}

/// Asks the daemon, which has the metadata, what an image says is to be run.
fn config(global: &Global, mountpoint: &Path) -> anyhow::Result<RunConfig> {
    match ask(global, Request::Config { mountpoint: mountpoint.to_owned() })? {
        Reply::Config(config) => Ok(config),
        other => bail!("the daemon answered with {other:?}"),
    }
}

fn ask(global: &Global, request: Request) -> anyhow::Result<Reply> {
    Ok(Client::new(&defaults::cache(global)?, None).ask(&request, ANSWERS)?.0)
}

/// The container that `args` ask for, on the image mounted at `lower`.
pub fn spec(
    args: &RunArgs,
    config: &RunConfig,
    lower: &Path,
    reference: &str,
) -> anyhow::Result<(Spec, Command)> {
    let mut argv: Vec<String> = match &args.entrypoint {
        Some(program) if program.is_empty() => Vec::new(),
        Some(program) => vec![program.clone()],
        None => config.entrypoint.clone(),
    };
    argv.extend(args.command.iter().cloned());
    if argv.is_empty() {
        bail!("the image has no entrypoint: say what to run after --");
    }
    let user = args.user.as_ref().or(config.user.as_ref()).map_or("", String::as_str);
    let user = resolve_user(lower, user)?;
    let home = user.home.as_ref().map_or("/".into(), |h| h.to_string_lossy().into_owned());
    let mut env = vec![PATH.to_owned(), format!("HOME={home}")];
    if let Ok(term) = std::env::var("TERM") {
        env.push(format!("TERM={term}"));
    }
    for more in config.env.iter().chain(&args.env) {
        set(&mut env, more);
    }
    let tail = &reference[reference.len().saturating_sub(12)..];
    let spec = Spec {
        lower: lower.to_owned(),
        upper: Upper::Memory { bytes: args.upper_size },
        hostname: args.hostname.clone().unwrap_or_else(|| tail.to_owned()),
        network: match args.net {
            Net::None => Network::None,
            Net::Host => Network::Host,
        },
        volumes: Vec::new(),
        files: Vec::new(),
        limits: None,
        workdir: match (&args.workdir, &config.workdir) {
            (Some(asked), _) => asked.into(),
            // Some images mean it from their root.
            (None, Some(image)) => Path::new("/").join(image),
            (None, None) => "/".into(),
        },
        privileged: args.privileged,
    };
    let command = Command { argv: strings(argv)?, env: strings(env)?, user };
    Ok((spec, command))
}

/// Puts `KEY=VALUE` in place of an earlier value of the same key.
fn set(env: &mut Vec<String>, pair: &str) {
    let key = pair.split('=').next().unwrap_or(pair);
    env.retain(|e| e.split('=').next() != Some(key));
    env.push(pair.to_owned());
}

fn strings(list: Vec<String>) -> anyhow::Result<Vec<CString>> {
    list.into_iter().map(|s| CString::new(s).context("an argument holds a NUL")).collect()
}
