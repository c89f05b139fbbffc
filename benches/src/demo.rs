//! `make demo`: a real Debian tree, packed, mounted by its CID with an empty cache, and python3 run in it.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Context;
use benchmarks::debian;
use benchmarks::flist::Flist;
use benchmarks::machine::{drop_caches, need_root, show};
use benchmarks::run::output;
use benchmarks::stop;
use comfy_table::{Table, presets};
use indicatif::BinaryBytes;

const PROGRAM: &str = "import sys; print('python', sys.version.split()[0], 'says hello')";

fn main() -> anyhow::Result<()> {
    need_root("the demo")?;
    stop::listen()?;
    let tree = debian::tree()?;
    let folder = tempfile::Builder::new().prefix("g8os-demo-").tempdir_in("/var/tmp")?;
    let flist = Flist::new(folder.path())?;
    let tree_path = tree.to_string_lossy();

    let began = Instant::now();
    let report = flist.json(&["pack", &tree_path])?;
    let packed = began.elapsed();
    let cid = report["cid"].as_str().context("pack named no CID")?.to_owned();
    println!("$ flist pack {tree_path}\n{cid}");

    let mount = folder.path().join("root");
    drop_caches()?;
    let began = Instant::now();
    let mounted = flist.mount(&cid, &mount, &[])?;
    let mount_time = began.elapsed();
    println!("$ flist mount {cid} root");

    let python = || -> anyhow::Result<(String, Duration)> {
        let began = Instant::now();
        let mut command = Command::new("chroot");
        command.arg(&mount).args(["/usr/bin/python3", "-c", PROGRAM]);
        Ok((output(&mut command)?, began.elapsed()))
    };
    let (said, cold) = python()?;
    println!("$ chroot root python3 -c ...\n{}", said.trim());
    let (_, warm) = python()?;
    let status = mounted.status()?;
    drop(mounted);

    let number = |key: &str| report[key].as_u64().unwrap_or_default();
    let (stored, metadata) = (number("stored_bytes"), number("metadata_bytes"));
    let fetched = status["bytes_fetched"].as_u64().unwrap_or_default();
    let share = 100.0 * fetched as f64 / (stored + metadata) as f64;
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    for (what, value) in [
        ("inodes", number("inodes").to_string()),
        ("tree", BinaryBytes(number("content_bytes")).to_string()),
        ("packed", format!("{} (metadata {})", BinaryBytes(stored + metadata), BinaryBytes(metadata))),
        ("time to pack", show(packed)),
        ("time to mount", show(mount_time)),
        ("python3, first output, cold", show(cold)),
        ("python3, first output, warm", show(warm)),
        ("fetched", format!("{} of {} ({share:.1} %)", BinaryBytes(fetched), BinaryBytes(stored + metadata))),
    ] {
        table.add_row([what, &value]);
    }
    println!("{table}");
    anyhow::ensure!(said.contains("says hello"), "python3 did not run: {said}");
    Ok(())
}
