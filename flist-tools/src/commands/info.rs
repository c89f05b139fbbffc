//! `flist info REF`: what an flist is, and its parts written out for other tools.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::Context;
use g8_fs::erofs::{BLOCK_SIZE, Device};
use g8_fs::format::RunConfig;
use serde::Serialize;

use crate::cli::{Global, InfoArgs};
use crate::output;
use crate::session::Session;

#[derive(Serialize)]
struct Info<'a> {
    #[serde(rename = "ref")]
    reference: String,
    os: &'a str,
    arch: Option<&'a str>,
    inodes: u64,
    directories: u64,
    files: u64,
    symlinks: u64,
    content_bytes: u64,
    blocks: u64,
    stored_bytes: u64,
    frame_bytes: u32,
    tree_bytes: u64,
    map_bytes: u64,
    small_blocks: u32,
    big_blocks: u32,
    parent: Option<String>,
    config: &'a RunConfig,
}

pub fn run(global: &Global, args: &InfoArgs) -> anyhow::Result<()> {
    let session = Session::open(global, &args.reference)?;
    let image = session.fs.image();
    let (root, devices) = (&image.root, image.tree.devices());
    if let Some(path) = &args.tree_out {
        std::fs::write(path, image.tree.bytes()).with_context(|| format!("writing {}", path.display()))?;
    }
    for (path, device, blocks) in [
        (&args.small_out, Device::Small, devices.small_blocks),
        (&args.big_out, Device::Big, devices.big_blocks),
    ] {
        if let Some(path) = path {
            write_space(&session, path, device, blocks)
                .with_context(|| format!("writing {}", path.display()))?;
        }
    }
    let info = Info {
        reference: image.id.to_string(),
        os: &root.os,
        arch: root.arch.as_deref(),
        inodes: root.inodes,
        directories: image.summary.directories,
        files: image.summary.files,
        symlinks: image.summary.symlinks,
        content_bytes: root.content_bytes,
        blocks: root.blocks,
        stored_bytes: root.stored_bytes,
        frame_bytes: image.map.frame_len(),
        tree_bytes: root.tree_bytes,
        map_bytes: root.map_bytes,
        small_blocks: devices.small_blocks,
        big_blocks: devices.big_blocks,
        parent: root.parent.map(|p| p.to_string()),
        config: &root.config,
    };
    if global.json { output::json(&info) } else { text(&info) }
}

fn text(info: &Info<'_>) -> anyhow::Result<()> {
    let platform = format!("{}/{}", info.os, info.arch.unwrap_or("any"));
    let inodes = format!(
        "{} ({} directories, {} files, {} symlinks)",
        info.inodes, info.directories, info.files, info.symlinks
    );
    let blocks = format!("{} of {}", info.blocks, output::size(info.stored_bytes));
    let metadata = format!("tree {}, map {}", output::size(info.tree_bytes), output::size(info.map_bytes));
    let mut rows = vec![
        ("ref", info.reference.clone()),
        ("platform", platform),
        ("inodes", inodes),
        ("contents", output::size(info.content_bytes)),
        ("blocks", blocks),
        ("frames", output::size(info.frame_bytes.into())),
        ("metadata", metadata),
    ];
    let config = info.config;
    if !config.entrypoint.is_empty() {
        rows.push(("entrypoint", config.entrypoint.join(" ")));
    }
    rows.extend(config.env.iter().map(|e| ("env", e.clone())));
    rows.extend(config.workdir.iter().map(|w| ("workdir", w.clone())));
    rows.extend(config.user.iter().map(|u| ("user", u.clone())));
    rows.extend(config.labels.iter().map(|(key, value)| ("label", format!("{key}={value}"))));
    for (name, value) in rows {
        output::line(format_args!("{name:<10}  {}", output::name(value.as_bytes())))?;
    }
    Ok(())
}

/// Writes a data space as the kernel would read it: a sparse file, zero where no contents lie.
fn write_space(session: &Session, path: &Path, device: Device, blocks: u32) -> anyhow::Result<()> {
    let file = File::create(path)?;
    file.set_len(u64::from(blocks) * BLOCK_SIZE)?;
    for extent in session.fs.image().map.extents(device) {
        let bytes = session.runtime.block_on(session.fs.read_space(device, extent.start, extent.len))?;
        file.write_all_at(bytes.as_ref(), extent.start)?;
    }
    Ok(())
}
