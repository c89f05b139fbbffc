//! Random trees, and random operations on the mount against the same operations on the directory it was packed from.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use harness::kernel_mount::judge;
use harness::{Flist, Place, SplitMix64, args, compare, random_tree, synthetic, walk};

#[test]
fn random_trees_survive_every_way_through() {
    for seed in 1..=12 {
        let (flist, place) = (Flist::new(), Place::new());
        let (source, copy) = (place.join("source"), place.join("copy"));
        random_tree::build(&source, seed, 50 * seed as usize);
        eprintln!("seed {seed}");
        let cid = flist.pack(&source);
        let mounted = flist.mount(&cid);
        compare::assert_same(&source, mounted.path());
        compare::assert_same(&source, judge(&flist, &cid, &place).path());
        flist.ok(args!["unpack", cid, copy]);
        compare::assert_same(&source, &copy);
        assert_eq!(cid, flist.pack_with(&copy, &["--threads", "1"]), "seed {seed}");
    }
}

/// Growing one image step by step: each step is its own image, and all share one store and one daemon.
#[test]
fn many_images_of_one_changing_tree_are_served_side_by_side() {
    let (flist, place) = (Flist::new(), Place::new());
    let source = place.join("source");
    random_tree::build(&source, 100, 150);
    let mut rng = SplitMix64::new(101);
    let mut images = Vec::new();
    for step in 0..6 {
        let files = synthetic::files(&source);
        let changed = source.join(&files[rng.below(files.len() as u64) as usize]);
        let mut bytes = fs::read(&changed).unwrap();
        let more = 1 + rng.below(5000) as usize;
        bytes.extend(rng.bytes(more));
        fs::write(&changed, bytes).unwrap();
        let snapshot = place.join(&format!("snapshot-{step}"));
        harness::process::tool("cp", args!["-a", source, snapshot]);
        images.push((flist.pack(&source), snapshot));
    }
    let mounts: Vec<_> = images.iter().map(|(cid, _)| flist.mount(cid)).collect();
    for (mounted, (_, snapshot)) in mounts.iter().zip(&images) {
        assert_eq!(mounted.pid(), mounts[0].pid());
        compare::assert_same(snapshot, mounted.path());
    }
}

#[test]
fn ten_thousand_random_operations_answer_as_the_source_does() {
    let (flist, place) = (Flist::new(), Place::new());
    let source = place.join("source");
    random_tree::build(&source, 7, 400);
    let cid = flist.pack(&source);
    let mounted = flist.mount(&cid);
    let mut paths: Vec<PathBuf> = Vec::new();
    walk::walk(&source, &mut |v| paths.push(v.rel.clone())).unwrap();
    let mut rng = SplitMix64::new(8);
    for round in 0..10_000 {
        let mut rel = paths[rng.below(paths.len() as u64) as usize].clone();
        if rng.below(10) == 0 {
            rel.push(["missing", "..", ".", ""][rng.below(4) as usize]);
        }
        let operation = rng.below(6);
        let seed = rng.next_u64();
        let (a, b) = (answer(&source, &rel, operation, seed), answer(mounted.path(), &rel, operation, seed));
        assert!(a == b, "round {round}, operation {operation} on {rel:?}:\nsource {a:.200}\nmount  {b:.200}");
    }
}

/// One operation and its answer as text; errors by number.
fn answer(root: &Path, rel: &Path, operation: u64, seed: u64) -> String {
    let path = root.join(rel);
    let mut rng = SplitMix64::new(seed);
    let done = match operation {
        0 => fs::symlink_metadata(&path).map(|m| {
            let size = if m.is_dir() { 0 } else { m.len() };
            format!(
                "{:o} {} {} {size} {}.{} {}",
                m.mode(),
                m.uid(),
                m.gid(),
                m.mtime(),
                m.mtime_nsec(),
                m.rdev()
            )
        }),
        1 => fs::read_link(&path).map(|target| format!("{target:?}")),
        2 if is_readable(&path) => File::open(&path).and_then(|file| {
            let mut bytes = vec![0; 1 + rng.below(200_000) as usize];
            let n = file.read_at(&mut bytes, rng.below(file.metadata()?.len() + 100))?;
            // The source and the mount may both stop early, but only at the end of the file.
            Ok(format!("{n} {:x}", harness::prng::fnv1a(harness::prng::FNV_START, &bytes[..n])))
        }),
        3 => fs::read_dir(&path).map(|dir| {
            let mut names: Vec<_> = dir.flatten().map(|e| (e.file_name(), e.file_type().ok())).collect();
            names.sort_by(|a, b| a.0.cmp(&b.0));
            format!("{names:?}")
        }),
        4 => {
            let mut names = vec![0; 4096];
            let listed = rustix::fs::llistxattr(&path, &mut names[..]).map(|n| {
                let mut names: Vec<_> = names[..n].split(|b| *b == 0).collect();
                names.sort_unstable();
                format!("{names:?}")
            });
            listed.map_err(Into::into)
        }
        _ => {
            let name = ["user.0", "trusted.1", "user.missing"][rng.below(3) as usize];
            let mut value = vec![0; 4096];
            rustix::fs::lgetxattr(&path, name, &mut value[..])
                .map(|n| format!("{:?}", &value[..n]))
                .map_err(Into::into)
        }
    };
    done.unwrap_or_else(|e| format!("errno {:?}", e.raw_os_error()))
}

/// Opening a fifo or a device would wait for somebody.
fn is_readable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|m| m.is_file() || m.is_dir())
}
