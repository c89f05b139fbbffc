//! `make bench`: packing, walking and reading beside other tools, interleaved in one run.
//!
//! Every round runs every contender once, so that a change of the machine's speed hits all of them. Reported are
//! medians and their ratio to the first contender; every single time goes to `benches/results/`.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context;
use benchmarks::debian;
use benchmarks::flist::{Flist, Mounted};
use benchmarks::machine::{describe, drop_caches, drop_inodes, median, need_root, show};
use benchmarks::run::{command, output, timed};
use comfy_table::{Table, presets};
use indicatif::BinaryBytes;
use serde_json::{Value, json};

const ROUNDS: usize = 5;
/// Files up to this size are read by the rows about small files.
const SMALL: u64 = 64 * 1024;

/// One row: a task, its contenders, and their times, a list per contender.
struct Row {
    task: &'static str,
    contenders: Vec<&'static str>,
    times: Vec<Vec<Duration>>,
}

impl Row {
    fn new(task: &'static str, contenders: &[&'static str]) -> Row {
        Row { task, contenders: contenders.to_vec(), times: vec![Vec::new(); contenders.len()] }
    }
}

fn main() -> anyhow::Result<()> {
    need_root("the comparison")?;
    let tree = debian::tree()?;
    let folder = tempfile::Builder::new().prefix("g8os-bench-").tempdir_in("/var/tmp")?;
    let bench = Bench { tree, folder: folder.path().to_owned(), flist: Flist::new(folder.path())? };
    let mut rows = vec![bench.pack()?];
    let sizes = bench.sizes()?;
    rows.extend(bench.read()?);
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header(["task", "contender", "median", "ratio"]);
    for row in &rows {
        let first = median(&row.times[0]).as_secs_f64();
        for (contender, times) in row.contenders.iter().zip(&row.times) {
            let middle = median(times);
            let ratio = format!("{:.2}", middle.as_secs_f64() / first);
            table.add_row([row.task, contender, &show(middle), &ratio]);
        }
    }
    for (contender, bytes) in &sizes {
        let ratio = format!("{:.2}", *bytes as f64 / sizes[0].1 as f64);
        table.add_row(["size", contender, &BinaryBytes(*bytes).to_string(), &ratio]);
    }
    println!("{}, {ROUNDS} rounds, medians", describe());
    println!("{table}");
    keep(&rows, &sizes)
}

struct Bench {
    tree: PathBuf,
    folder: PathBuf,
    flist: Flist,
}

impl Bench {
    fn at(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// From a tree in the page cache to a durable image. The others do not sync by themselves, so they are made to.
    fn pack(&self) -> anyhow::Result<Row> {
        let mut row = Row::new("pack", &["flist", "tar | zstd -3 -T0", "mksquashfs zstd 3"]);
        let tree = self.tree.to_string_lossy().into_owned();
        let (tar, squash) = (self.at("t.tar.zst"), self.at("t.sqfs"));
        output(&mut command("tar", &["-C", &tree, "-cf", "/dev/null", "."]))?;
        for _ in 0..ROUNDS {
            remove(&self.flist.store)?;
            row.times[0].push(timed(&mut self.flist.command(&["pack", &tree]))?);
            remove(&tar)?;
            let script =
                format!("tar -C '{tree}' -cf - . | zstd -q -3 -T0 -o '{0}' && sync '{0}'", tar.display());
            row.times[1].push(timed(&mut command("sh", &["-c", &script]))?);
            remove(&squash)?;
            let script = format!(
                "mksquashfs '{tree}' '{0}' -comp zstd -Xcompression-level 3 -quiet -no-progress && sync '{0}'",
                squash.display()
            );
            row.times[2].push(timed(&mut command("sh", &["-c", &script]))?);
        }
        Ok(row)
    }

    fn sizes(&self) -> anyhow::Result<Vec<(&'static str, u64)>> {
        let mut stored = 0;
        for entry in walk(&self.flist.store)? {
            stored += fs::symlink_metadata(&entry)?.len();
        }
        let size = |name| -> anyhow::Result<u64> { Ok(fs::metadata(self.at(name))?.len()) };
        Ok(vec![
            ("flist", stored),
            ("tar | zstd -3 -T0", size("t.tar.zst")?),
            ("mksquashfs zstd 3", size("t.sqfs")?),
        ])
    }

    /// Walking and reading through mounts, beside ext4 (the source tree) and squashfuse.
    fn read(&self) -> anyhow::Result<Vec<Row>> {
        let cid = output(&mut self.flist.command(&["pack", &self.tree.to_string_lossy()]))?;
        let names = ["flist", "ext4", "squashfuse_ll"];
        let mut cold = Row::new("find -ls, inodes cold", &names);
        let mut warm = Row::new("find -ls, warm", &names);
        let mut first = Row::new("open+read+close of small files, first time", &names);
        let mut again = Row::new("open+read+close of small files, again", &names);
        for round in 0..ROUNDS {
            // A new cache each round: what is read first comes from the store.
            remove(&self.flist.cache)?;
            drop_caches()?;
            let ours = self.at(&format!("flist-{round}"));
            let mounted = self.flist.mount(cid.trim(), &ours)?;
            let squash = Squash::mount(&self.at("t.sqfs"), &self.at(&format!("squash-{round}")))?;
            let places = [ours.as_path(), self.tree.as_path(), squash.at.as_path()];
            for (n, place) in places.iter().enumerate() {
                drop_inodes()?;
                cold.times[n].push(find(place)?);
                warm.times[n].push(find(place)?);
                let files = small_files(place)?;
                first.times[n].push(read_all(&files)?);
                again.times[n].push(read_all(&files)?);
            }
            check(&mounted)?;
        }
        Ok(vec![cold, warm, first, again])
    }
}

fn check(mounted: &Mounted<'_>) -> anyhow::Result<()> {
    let errors = mounted.status()?["errors"].as_u64();
    anyhow::ensure!(errors == Some(0), "reads failed: {errors:?}");
    Ok(())
}

fn find(place: &Path) -> anyhow::Result<Duration> {
    timed(&mut command("find", &[place.as_os_str(), "-ls".as_ref()]))
}

fn small_files(place: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = walk(place)?;
    let mut keep = Vec::new();
    for file in files.drain(..) {
        let meta = fs::symlink_metadata(&file)?;
        if meta.is_file() && meta.len() <= SMALL {
            keep.push(file);
        }
    }
    Ok(keep)
}

fn read_all(files: &[PathBuf]) -> anyhow::Result<Duration> {
    let mut buffer = vec![0; SMALL as usize + 1];
    let began = Instant::now();
    for path in files {
        let mut file = fs::File::open(path).with_context(|| path.display().to_string())?;
        while file.read(&mut buffer)? > 0 {}
    }
    Ok(began.elapsed())
}

fn walk(place: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let (mut files, mut pending) = (Vec::new(), vec![place.to_owned()]);
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(&dir).with_context(|| dir.display().to_string())? {
            let entry = entry?;
            if entry.file_type()?.is_dir() { pending.push(entry.path()) } else { files.push(entry.path()) }
        }
    }
    files.sort();
    Ok(files)
}

fn remove(path: &Path) -> anyhow::Result<()> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e).context(path.display().to_string()),
        _ => Ok(()),
    }
}

/// A squashfuse mount that is ended on drop.
struct Squash {
    at: PathBuf,
}

impl Squash {
    fn mount(image: &Path, at: &Path) -> anyhow::Result<Squash> {
        fs::create_dir_all(at)?;
        output(Command::new("squashfuse_ll").arg(image).arg(at))?;
        Ok(Squash { at: at.to_owned() })
    }
}

impl Drop for Squash {
    fn drop(&mut self) {
        if let Err(error) = output(Command::new("umount").arg("-l").arg(&self.at)) {
            eprintln!("{error:#}");
        }
    }
}

/// Every single time, for later: `benches/results/SECONDS.json`.
fn keep(rows: &[Row], sizes: &[(&str, u64)]) -> anyhow::Result<()> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
    let version = |program: &str, flag: &str| -> String {
        let said = Command::new(program).arg(flag).output().map(|o| o.stdout).unwrap_or_default();
        String::from_utf8_lossy(&said).lines().next().unwrap_or("unknown").to_owned()
    };
    let rows: Vec<Value> = rows
        .iter()
        .map(|row| {
            let times: Vec<Vec<f64>> =
                row.times.iter().map(|t| t.iter().map(Duration::as_secs_f64).collect()).collect();
            json!({ "task": row.task, "contenders": row.contenders, "seconds": times })
        })
        .collect();
    let document = json!({
        "unix_time": now,
        "machine": describe(),
        "versions": [version("tar", "--version"), version("zstd", "--version"), version("mksquashfs", "-version")],
        "rows": rows,
        "bytes": sizes,
    });
    let folder = Path::new("benches/results");
    fs::create_dir_all(folder)?;
    let file = folder.join(format!("{now}.json"));
    fs::write(&file, serde_json::to_vec_pretty(&document)?)?;
    println!("raw times: {}", file.display());
    Ok(())
}
