//! Trees that are made rather than copied.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use super::realistic::Realistic;
use super::{BIG, RANDOM, SMALL_BYTES};
use crate::compare::seeded::Seeded;
use crate::stop;

/// Files a folder of the tree of tiny files, and of that of small ones.
const TINY_A_FOLDER: usize = 1000;
const SMALL_A_FOLDER: usize = 100;
/// Bytes of a tiny file, at least and below.
const TINY_BYTES: (u64, u64) = (32, 2048);
const SEED: u64 = 3;

/// Files of words, all different.
pub(super) fn tiny(target: &Path, files: usize) -> anyhow::Result<()> {
    const WORDS: [&str; 16] = [
        "block", "tree", "frame", "mount", "inode", "fetch", "verify", "root", "cache", "extent", "source",
        "reply", "miss", "hit", "store", "name",
    ];
    let mut seeded = Seeded::new(SEED);
    let mut text = String::new();
    for number in 0..files {
        let folder = target.join(format!("{:03}", number / TINY_A_FOLDER));
        if number % TINY_A_FOLDER == 0 {
            fs::create_dir(&folder)?;
        }
        let length = (TINY_BYTES.0 + seeded.below(TINY_BYTES.1 - TINY_BYTES.0)) as usize;
        text.clear();
        while text.len() < length {
            text.push_str(WORDS[seeded.below(WORDS.len() as u64) as usize]);
            text.push_str(&format!(" {:x}\n", seeded.below(4096)));
        }
        text.truncate(length);
        fs::write(folder.join(format!("file-{number:06}")), &text)?;
    }
    Ok(())
}

/// Pieces of text and of programs, in turn.
pub(super) fn small(target: &Path, files: usize) -> anyhow::Result<()> {
    let mut contents = [Realistic::of(&["share", "include"]), Realistic::of(&["bin", "lib"])];
    let mut buffer = vec![0; SMALL_BYTES];
    for number in 0..files {
        let folder = target.join(format!("{:03}", number / SMALL_A_FOLDER));
        if number % SMALL_A_FOLDER == 0 {
            fs::create_dir(&folder)?;
        }
        contents[number % 2].fill(&mut buffer)?;
        fs::write(folder.join(format!("file-{number:06}")), &buffer)?;
    }
    Ok(())
}

/// Programs and libraries in a row.
pub(super) fn large(target: &Path, big: u64, random: u64) -> anyhow::Result<()> {
    let libraries = format!("lib/{}-linux-gnu", std::env::consts::ARCH);
    let mut content = Realistic::of(&["bin", "sbin", &libraries, "lib", "libexec", "share"]);
    let mut buffer = vec![0; 1 << 20];
    for (name, bytes) in [(BIG, big), (RANDOM, random)] {
        let mut file = File::create(target.join(name))?;
        for _ in 0..bytes / buffer.len() as u64 {
            stop::check()?;
            content.fill(&mut buffer)?;
            file.write_all(&buffer)?;
        }
    }
    Ok(())
}
