//! `flist profile record|show`: what a command reads first, as an object that others follow when they mount.

use std::time::Instant;

use anyhow::{Context, bail};
use g8_cache::{BlockId, Codec};
use g8_fs::format::Profile;
use g8_fs::reference::{Hints, Reference};
use g8_fs::source::DirStore;
use serde::Serialize;

use crate::cli::{Global, ProfileCommand, ProfileRecordArgs};
use crate::commands::run::{Watch, contained};
use crate::session::{Session, Wanted, wanted};
use crate::{defaults, output};

/// What was recorded, or is shown.
#[derive(Serialize)]
struct Shown<'a> {
    /// The flist with this profile.
    #[serde(rename = "ref")]
    reference: String,
    profile: BlockId,
    flist: BlockId,
    label: &'a str,
    /// Their numbers in the order of the first reading.
    blocks: &'a [u32],
    stored_bytes: u64,
}

pub fn run(global: &Global, command: &ProfileCommand) -> anyhow::Result<()> {
    match command {
        ProfileCommand::Record(args) => record(global, args),
        ProfileCommand::Show { reference } => show(global, reference),
    }
}

fn record(global: &Global, args: &ProfileRecordArgs) -> anyhow::Result<()> {
    // Before anything runs: there must be a place for the result.
    let store = DirStore::create(&defaults::sink(global)?)?;
    let wanted = wanted(global, &args.run.reference)?;
    let (code, blocks) = {
        let _aside = Aside::new().context("leading the output of the command to stderr")?;
        contained(global, &wanted, &args.run, Watch::Blocks)?
    };
    if code != 0 {
        output::warn(format_args!(
            "the command ended with code {code}: the profile has what it read until then"
        ));
    }
    if blocks.is_empty() {
        bail!("the command read nothing that a profile could name: no file of more than a few bytes");
    }
    let label = args.label.clone().unwrap_or_else(|| args.run.command.join(" "));
    let profile = Profile::new(wanted.id, &label, blocks);
    let bytes = profile.to_bytes()?;
    let id = BlockId::of(Codec::DagCbor, &bytes);
    store.put(&id, &bytes)?;
    store.sync()?;
    tell(global, &wanted, id, &profile, Text::Reference)
}

fn show(global: &Global, reference: &str) -> anyhow::Result<()> {
    let mut wanted = wanted(global, reference)?;
    let id = wanted.profile.unwrap_or(wanted.id);
    let deadline = Instant::now() + global.deadline();
    let sources = wanted.open_sources(deadline)?;
    let block = crate::session::runtime()?.block_on(sources.fetch_verified(id, deadline))?;
    let profile = Profile::from_bytes(block.bytes()).with_context(|| match wanted.profile {
        Some(_) => format!("{id} is no profile"),
        None => format!("{id} is no profile: name one, or an flist with ?profile=CID"),
    })?;
    if wanted.profile.is_some() && profile.flist()? != wanted.id {
        output::warn(format_args!("it is a profile of another flist, and is not followed for {}", wanted.id));
    }
    wanted.id = profile.flist()?;
    tell(global, &wanted, id, &profile, Text::All)
}

/// How much is said as text.
enum Text {
    Reference,
    All,
}

fn tell(global: &Global, wanted: &Wanted, id: BlockId, profile: &Profile, text: Text) -> anyhow::Result<()> {
    let hints = Hints::default().with_profile(id);
    let reference = Reference { hints, ..wanted.id.into() }.to_string();
    if !global.json && matches!(text, Text::Reference) {
        return output::line(reference);
    }
    let session = Session::of(global, wanted)?;
    let map = &session.fs.image().map;
    profile.judge_for(wanted.id, map.block_count())?;
    let stored_bytes = profile.blocks.iter().map(|block| u64::from(map.block(*block).stored_len())).sum();
    if global.json {
        let Profile { label, blocks, .. } = profile;
        return output::json(&Shown {
            reference,
            profile: id,
            flist: wanted.id,
            label,
            blocks,
            stored_bytes,
        });
    }
    let (blocks, all) = (profile.blocks.len(), map.block_count());
    let (bytes, of) = (output::size(stored_bytes), output::size(map.stored_bytes()));
    for (name, value) in [
        ("profile", id.to_string()),
        ("flist", wanted.id.to_string()),
        ("label", output::name(profile.label.as_bytes())),
        ("blocks", format!("{blocks} of {all}, {bytes} of {of}")),
    ] {
        output::line(format_args!("{name:<8}  {value}"))?;
    }
    Ok(())
}

/// While it lives what is written to stdout goes to stderr: the result alone is for programs.
struct Aside(std::os::fd::OwnedFd);

impl Aside {
    fn new() -> anyhow::Result<Aside> {
        let kept = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdout(), 3)?;
        rustix::stdio::dup2_stdout(rustix::stdio::stderr())?;
        Ok(Aside(kept))
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        if let Err(error) = rustix::stdio::dup2_stdout(&self.0) {
            output::warn(format_args!("stdout is lost: {error}"));
        }
    }
}
