//! Packs a directory into a nydus v3 image, with the steps and the defaults of `nydus build --blob-dir
//! --bootstrap`.
//!
//! Defaults, all taken from the crates' own constants: files cut at 2 MiB, chunks below 2 MiB gathered into
//! content-defined packs of 2 to 8 MiB, zstd at its default level (3), a BLAKE3 digest per group, SHA-256
//! over the data and over the blob. Their writer walks and hashes on the calling thread and compresses on two
//! more; it has no knob for that.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::BufWriter;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nydus_core::build::blob_chunk::{BlobLayout, BlobWriter, DEFAULT_CHUNK_GROUP_MIN_SIZE};
use nydus_core::build::bootstrap::{flatten_bootstrap_in_place, render_bootstrap};
use nydus_core::build::inode::{
    build_tree, choose_epoch, resolve_chunk_addrs, set_root_prefetch_blobs_xattr,
};
use nydus_core::build::{HashingWriter, save_blob_metadata_sidecar};
use nydus_format::blob::{BlobMetadata, BlobMetadataCompressor, BlobMetadataDigester, finish_full_blob};
use nydus_format::erofs::ErofsDeviceSlot;
use nydus_format::utils::hex_string;

/// The bootstrap's name inside an image directory; the blob beside it is named by its own SHA-256.
pub const BOOTSTRAP: &str = "image.boot";

/// The blob under construction: its name is known only when its last byte is written.
const UNNAMED_BLOB: &str = ".blob.tmp";

/// Their builder leaves the filesystem's id zero too.
const UUID: [u8; 16] = [0; 16];

/// What one pack wrote, and how long it took (nothing is synced).
pub struct Packed {
    pub blob_bytes: u64,
    pub bootstrap_bytes: u64,
    pub sidecar_bytes: u64,
    pub elapsed: Duration,
}

/// Packs `tree` into the directory `outdir`.
pub fn pack(tree: &Path, outdir: &Path) -> Result<Packed> {
    let started = Instant::now();
    let tree = tree.canonicalize().with_context(|| format!("open the tree {}", tree.display()))?;
    ensure!(tree.is_dir(), "{} is not a directory", tree.display());
    make_empty_dir(outdir, &tree)?;

    let unnamed = outdir.join(UNNAMED_BLOB);
    let file = File::create_new(&unnamed).with_context(|| format!("create {}", unnamed.display()))?;
    let layout = BlobLayout::ChunkGroups { chunk_group_min_size: DEFAULT_CHUNK_GROUP_MIN_SIZE };
    let chunk_size = BlobMetadata::DEFAULT_CHUNK_SIZE;
    let digester = Some(BlobMetadataDigester::Blake3);
    let mut writer = BlobWriter::new(file, chunk_size, BlobMetadataCompressor::Zstd, digester, true, layout)?;
    let mut inodes = build_tree(&tree, &mut writer, chunk_size, &HashSet::new())?;
    writer.finish()?;
    // A chunk's address is known only once its group is closed.
    resolve_chunk_addrs(&mut inodes, &writer)?;

    // The bootstrap inside the blob names the data region, for a blob cannot hold its own digest.
    let blocks = writer.total_block_count();
    let data_digest = writer.data_digest().context("the data was not hashed")?;
    let root = inodes.first_mut().context("the tree has no root")?;
    set_root_prefetch_blobs_xattr(root, &[1])?;
    let epoch = choose_epoch(&inodes);
    let embedded = [ErofsDeviceSlot::with_blob_id(blocks, &data_digest)?];
    let mut bootstrap = render_bootstrap(&mut inodes, epoch, &embedded, &UUID)?;
    drop(inodes);

    let data_bytes = writer.data_size();
    let (file, hasher, metadata) = writer.into_parts_with_metadata()?;
    let metadata = metadata.context("the blob has no metadata")?;
    let mut blob = HashingWriter::new(BufWriter::new(file), hasher);
    finish_full_blob(&mut blob, data_bytes, Some(&bootstrap), Some(&metadata))?;
    let blob_digest = blob.finish().context("flush the blob")?.context("the blob was not hashed")?;

    let blob_path = outdir.join(hex_string(&blob_digest));
    fs::rename(&unnamed, &blob_path).context("name the blob")?;
    let sidecar_path = save_blob_metadata_sidecar(&metadata, &blob_path)?;
    // Both bootstraps differ only in the device table: theirs is patched as well, not rendered twice.
    flatten_bootstrap_in_place(&mut bootstrap, &[ErofsDeviceSlot::with_blob_id(blocks, &blob_digest)?])?;
    let bootstrap_path = outdir.join(BOOTSTRAP);
    fs::write(&bootstrap_path, &bootstrap).context("write the bootstrap")?;

    let elapsed = started.elapsed();
    Ok(Packed {
        blob_bytes: size_of_file(&blob_path)?,
        bootstrap_bytes: size_of_file(&bootstrap_path)?,
        sidecar_bytes: size_of_file(&sidecar_path)?,
        elapsed,
    })
}

/// Makes `dir`, or takes it if it is empty.
fn make_empty_dir(dir: &Path, tree: &Path) -> Result<()> {
    // The walk would meet its own output.
    let absolute = std::path::absolute(dir).with_context(|| format!("locate {}", dir.display()))?;
    let existing = absolute.ancestors().find_map(|ancestor| ancestor.canonicalize().ok());
    ensure!(!existing.is_some_and(|real| real.starts_with(tree)), "{} lies inside the tree", dir.display());

    fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
    let mut entries = fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))?;
    ensure!(entries.next().is_none(), "{} is not empty", dir.display());
    Ok(())
}

fn size_of_file(path: &Path) -> Result<u64> {
    let metadata = fs::metadata(path).with_context(|| format!("stat {}", path.display()))?;
    Ok(metadata.len())
}
