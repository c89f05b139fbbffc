//! Starting the command: from the request to mount until it has ended, and once more on the same mount.

use std::fs::OpenOptions;
use std::os::fd::OwnedFd;
use std::time::Instant;

use anyhow::{Context, bail};
use g8_fs::format::RunConfig;

use super::place::{Place, Use};
use crate::cli::{BenchArgs, Net, RunArgs};
use crate::commands::run::spec;

/// What one round found.
pub struct Start {
    /// The first start, mounting included.
    pub cold: Use,
    /// The second one.
    pub warm: Use,
}

pub fn measure(place: &Place, args: &BenchArgs, config: &RunConfig) -> anyhow::Result<Start> {
    let run = RunArgs {
        reference: args.reference.clone(),
        command: args.command.clone(),
        options: args.options.clone(),
        privileged: false,
        net: Net::None,
        entrypoint: None,
        env: Vec::new(),
        workdir: None,
        user: None,
        hostname: None,
        upper_size: 1 << 30,
    };
    let (spec, command) = spec(&run, config, place.path(), &place.status().reference)?;
    let once = || -> anyhow::Result<()> {
        let _silence = Silence::begin().context("silencing the command")?;
        match g8_container::run(&spec, &command)? {
            0 => Ok(()),
            code => bail!("the command ended with {code}"),
        }
    };
    once()?;
    let cold = place.used(place.began, place.status())?;
    let since = place.now()?;
    let began = Instant::now();
    once()?;
    Ok(Start { cold, warm: place.used(began, &since)? })
}

/// The command's stdout goes nowhere: ours carries the result.
struct Silence(OwnedFd);

impl Silence {
    fn begin() -> std::io::Result<Silence> {
        let nowhere = OpenOptions::new().write(true).open("/dev/null")?;
        let before = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdout(), 3)?;
        rustix::stdio::dup2_stdout(&nowhere)?;
        Ok(Silence(before))
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        if let Err(error) = rustix::stdio::dup2_stdout(&self.0) {
            tracing::error!(%error, "stdout stays closed");
        }
    }
}
