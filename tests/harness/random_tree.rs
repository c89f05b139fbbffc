//! Trees nobody thought of: made by a seed from everything a tree can hold.

use std::path::{Path, PathBuf};

use rustix::fs::FileType;

use crate::prng::SplitMix64;
use crate::tree::Builder;

/// Plants the tree of `seed` at `root`: up to `entries` entries below random directories.
pub fn build(root: &Path, seed: u64, entries: usize) {
    let mut tree = Builder::at(root);
    let mut rng = SplitMix64::new(seed);
    let (mut dirs, mut linkable) = (vec![PathBuf::new()], Vec::new());
    let mut past = Vec::new();
    for _ in 0..entries {
        let rel = dirs[rng.below(dirs.len() as u64) as usize].join(name(&mut rng));
        if tree.path(&rel).symlink_metadata().is_ok() || rel.as_os_str().len() > 3_000 {
            continue;
        }
        match rng.below(12) {
            0..=2 => {
                tree.dir(&rel);
                dirs.push(rel.clone());
            }
            3 => tree.symlink(&rel, "t".repeat(1 + rng.below(4095) as usize)),
            4 => tree.node(&rel, special(&mut rng), rng.below(4096) as u32, rng.below(1 << 20) as u32),
            5 if !linkable.is_empty() => {
                let old: &PathBuf = &linkable[rng.below(linkable.len() as u64) as usize];
                tree.hardlink(old, &rel);
                continue;
            }
            6 => {
                let len = 1 + rng.below(9000) as usize;
                let island = rng.bytes(len);
                let at = rng.below(10 << 20);
                tree.sparse(&rel, at + island.len() as u64 + rng.below(1 << 20), &[(at, &island)]);
            }
            _ => {
                let bytes = contents(&mut rng, &mut past);
                tree.file(&rel, &bytes);
                linkable.push(rel.clone());
            }
        }
        attributes(&mut tree, &mut rng, &rel);
    }
    tree.finish();
}

fn name(rng: &mut SplitMix64) -> PathBuf {
    use std::os::unix::ffi::OsStringExt;
    let len = if rng.below(20) == 0 { 200 + rng.below(56) } else { 1 + rng.below(12) };
    let bytes =
        rng.bytes(len as usize).into_iter().map(|b| if b == 0 || b == b'/' { b'_' } else { b }).collect();
    let name = PathBuf::from(std::ffi::OsString::from_vec(bytes));
    if name.as_os_str() == "." || name.as_os_str() == ".." { PathBuf::from("dots") } else { name }
}

fn special(rng: &mut SplitMix64) -> FileType {
    [FileType::Fifo, FileType::Socket, FileType::CharacterDevice, FileType::BlockDevice]
        [rng.below(4) as usize]
}

/// Noise, text, zeros, or a near copy of earlier contents.
fn contents(rng: &mut SplitMix64, past: &mut Vec<Vec<u8>>) -> Vec<u8> {
    let limit = [10, 5_000, 70_000, 1_500_000][rng.below(4) as usize];
    let len = rng.below(limit) as usize;
    let mut bytes = match rng.below(4) {
        0 => rng.bytes(len),
        1 => rng.text(len),
        2 => vec![0; len],
        _ => past.get(rng.below(past.len() as u64 + 1) as usize).cloned().unwrap_or_default(),
    };
    if !bytes.is_empty() && rng.below(2) == 0 {
        let at = rng.below(bytes.len() as u64) as usize;
        bytes[at] ^= 1;
        bytes.insert(at, b'+');
    }
    past.push(bytes.clone());
    bytes
}

fn attributes(tree: &mut Builder, rng: &mut SplitMix64, rel: &Path) {
    let kind = tree.path(rel).symlink_metadata().expect("it was just planted").file_type();
    if rng.below(3) == 0 {
        tree.owner(rel, rng.next_u64() as u32 >> rng.below(31), rng.next_u64() as u32 >> rng.below(31));
    }
    if !kind.is_symlink() && rng.below(2) == 0 {
        tree.mode(rel, rng.below(0o10000) as u32);
    }
    for i in 0..rng.below(4) {
        let prefix = if kind.is_file() || kind.is_dir() { "user" } else { "trusted" };
        let len = rng.below(200) as usize;
        let value = rng.bytes(len);
        tree.xattr(rel, &format!("{prefix}.{i}"), if rng.below(2) == 0 { b"common" } else { &value });
    }
    if rng.below(2) == 0 {
        // The range of ext4: 1901 to 2446.
        let seconds = rng.below(0x3_ffff_ffff) as i64 - 0x8000_0000;
        tree.time(rel, seconds.min(0x3_7fff_fffe), rng.below(1_000_000_000) as u32);
    }
}
