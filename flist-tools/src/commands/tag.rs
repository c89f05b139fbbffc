//! `flist tag [NAME REF]`: names of this user for flists.

use anyhow::{Context, bail};
use g8_fs::names::{Entry, Kind, Names, Tag};
use g8_fs::reference::{Reference, Target, resolve};
use serde::Serialize;

use crate::cli::{Global, TagArgs};
use crate::exit::Quiet;
use crate::output;

#[derive(Serialize)]
struct Named {
    name: String,
    cid: String,
    #[serde(rename = "ref")]
    reference: String,
    /// Seconds since 1970.
    saved: u64,
}

impl Named {
    fn new(name: &str, entry: &Entry) -> Named {
        let reference = Reference { target: Target::Cid(entry.id), hints: entry.hints.clone() };
        Named {
            name: name.to_owned(),
            cid: entry.id.to_string(),
            reference: reference.to_string(),
            saved: entry.saved,
        }
    }
}

pub fn run(global: &Global, args: &TagArgs) -> anyhow::Result<()> {
    let names = Names::of_user().context("neither XDG_DATA_HOME nor HOME is set: set one to keep names")?;
    match (&args.name, &args.reference) {
        (None, _) => list(global, &names),
        (Some(name), Some(reference)) => give(global, &names, name, reference),
        (Some(name), None) => {
            if !names.remove(Kind::Tag, name.as_str())? {
                bail!("there is no tag {name}: `flist tag` lists what there is");
            }
            Ok(())
        }
    }
}

fn give(global: &Global, names: &Names, name: &Tag, reference: &str) -> anyhow::Result<()> {
    let resolved = resolve(&reference.parse::<Reference>()?, Some(names))?;
    let entry = Entry::now(resolved.id, resolved.hints);
    names.set(Kind::Tag, name.as_str(), &entry)?;
    if global.json {
        return output::json(&Named::new(name.as_str(), &entry));
    }
    output::info(global, format_args!("{name} is {}", entry.id));
    Ok(())
}

/// A damaged one does not hide the others.
fn list(global: &Global, names: &Names) -> anyhow::Result<()> {
    let mut good = Vec::new();
    let mut damaged = 0;
    for (name, entry) in names.list(Kind::Tag)? {
        match entry {
            Ok(entry) => good.push(Named::new(&name, &entry)),
            Err(error) => {
                damaged += 1;
                output::warn(error);
            }
        }
    }
    if global.json {
        output::json(&good)?;
    } else {
        let width = good.iter().map(|named| named.name.len()).max().unwrap_or_default();
        for Named { name, reference, .. } in &good {
            output::line(format_args!("{name:<width$}  {reference}"))?;
        }
    }
    if damaged > 0 { Err(Quiet(1).into()) } else { Ok(()) }
}
