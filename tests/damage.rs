//! Wrong bytes never reach a reader: every stored object is damaged in turn, in every way a disk can do it.

use std::fs;
use std::path::Path;
use std::time::Duration;

use harness::store::{How, damage, objects};
use harness::{Flist, Outcome, Place, args, compare, synthetic};

/// A command that meets a damaged object ends soon: nobody else could have a better copy.
const SOON: Duration = Duration::from_secs(30);

struct Image {
    flist: Flist,
    place: Place,
    cid: String,
    objects: Vec<(String, std::path::PathBuf)>,
}

impl Image {
    fn new() -> Self {
        let (flist, place) = (Flist::new(), Place::new());
        synthetic::seven_megabytes(&place.join("source"));
        let cid = flist.pack(&place.join("source"));
        let objects = objects(flist.store());
        assert!(objects.len() >= 10, "too few objects to tell one from another: {}", objects.len());
        Self { flist, place, cid, objects }
    }

    fn source(&self) -> std::path::PathBuf {
        self.place.join("source")
    }

    /// Another object than the one at `path`.
    fn another(&self, path: &Path) -> std::path::PathBuf {
        self.objects.iter().map(|(_, p)| p).find(|p| *p != path).expect("more than one object").clone()
    }

    fn ways(&self, path: &Path, seed: u64) -> [How; 6] {
        [
            How::FlipBit(seed.wrapping_mul(0x9e37_79b9)),
            How::Truncate,
            How::Extend,
            How::Empty,
            How::Swap(self.another(path)),
            How::Remove,
        ]
    }
}

#[test]
fn check_names_every_damaged_object_and_nothing_else() {
    let image = Image::new();
    image.flist.ok(args!["check", image.cid]);
    for (i, (name, path)) in image.objects.iter().enumerate() {
        for how in image.ways(path, i as u64) {
            let damage = damage(path, &how);
            let outcome = image.flist.run_within(SOON, args!["check", image.cid]);
            drop(damage);
            let said = said(&outcome);
            assert_eq!(outcome.code, 1, "{how:?} of {name}: {said}");
            assert!(said.contains(name), "{how:?} of {name}: not named in {said}");
            for (other, path) in &image.objects {
                // What the bytes really are is good to know too.
                if other == name || *other == image.cid || matches!(&how, How::Swap(with) if with == path) {
                    continue;
                }
                assert!(!said.contains(other), "{how:?} of {name}: names the healthy {other} too: {said}");
            }
        }
    }
    image.flist.ok(args!["check", image.cid]);
}

#[test]
fn no_read_returns_wrong_bytes_whatever_object_is_damaged() {
    let image = Image::new();
    let files = synthetic::files(&image.source());
    let (mut refused, mut served) = (0, 0);
    for (i, (name, path)) in image.objects.iter().enumerate() {
        let ways = image.ways(path, i as u64);
        for how in [&ways[i % 6], &ways[(i + 3) % 6]] {
            let damage = damage(path, how);
            let dir = image.flist.mountpoint();
            let outcome = image.flist.run_within(SOON, args!["mount", image.cid, dir]);
            if outcome.code == 0 {
                let mounted = image.flist.adopt(&dir);
                let unreadable =
                    unreadable(&image.source(), mounted.path(), &files, &format!("{how:?} of {name}"));
                assert!(
                    unreadable * 2 <= files.len(),
                    "{how:?} of {name}: {unreadable} of {} files cannot be read",
                    files.len()
                );
                served += 1;
            } else {
                assert_eq!(outcome.code, 1, "{how:?} of {name}: {}", outcome.stderr);
                assert!(outcome.stderr.contains(name), "{how:?} of {name}: not named in: {}", outcome.stderr);
                harness::mount_table::assert_none_under(&dir);
                refused += 1;
            }
            drop(damage);
        }
    }
    // Root, tree and map are needed at once; data is not.
    assert!(
        refused >= 4 && served >= 16,
        "{refused} mounts refused, {served} served: the test saw too few of a kind"
    );
    compare::assert_same(&image.source(), image.flist.mount(&image.cid).path());
}

/// A block that a source had wrong is not asked from it again for half a minute, which `cache/tests` waits for on a clock of
/// its own. A new mount starts without grudge, also while the old one lives.
#[test]
fn a_repaired_object_is_read_through_the_next_mount() {
    let image = Image::new();
    let files = synthetic::files(&image.source());
    let mounted = image.flist.mount(&image.cid);
    for (i, (name, path)) in image.objects.iter().enumerate().step_by(3) {
        let damage = damage(path, &How::FlipBit(8 * i as u64 + 3));
        unreadable(&image.source(), mounted.path(), &files, name);
        drop(damage);
    }
    let wrong = mounted.status().wrong;
    assert!(wrong > 0, "some object was read while it was damaged");
    let next = image.flist.mount(&image.cid);
    compare::assert_same(&image.source(), next.path());
    // The old one still tells the truth or nothing.
    unreadable(&image.source(), mounted.path(), &files, "after the repair");
}

#[test]
fn another_copy_serves_what_the_first_source_has_wrong_and_the_wrong_bytes_are_counted() {
    let image = Image::new();
    let good = image.place.join("good");
    harness::process::tool("cp", args!["-a", image.flist.store(), good]);
    let damaged: Vec<_> = image
        .objects
        .iter()
        .enumerate()
        .map(|(i, (_, path))| damage(path, &How::FlipBit(i as u64 * 77)))
        .collect();
    let (bad, good) = (image.flist.spec(), format!("dir:{}", good.display()));
    let mounted = image.flist.mount_with(&image.cid, &["--from", &bad, "--from", &good]);
    compare::assert_same(&image.source(), mounted.path());
    let status = mounted.status();
    assert!(status.wrong >= 3, "wrong bytes are counted: {status:#?}");
    drop(damaged);
}

/// Reads every file; panics on wrong bytes or on an error that is no EIO. How many could not be read?
fn unreadable(source: &Path, mounted: &Path, files: &[std::path::PathBuf], what: &str) -> usize {
    let mut failed = 0;
    for rel in files {
        match fs::read(mounted.join(rel)) {
            Ok(bytes) => {
                let right = bytes == fs::read(source.join(rel)).unwrap();
                assert!(right, "{what}: WRONG BYTES in {}", rel.display());
            }
            Err(e) => {
                let code = e.raw_os_error();
                assert!(matches!(code, Some(libc::EIO | libc::ETIMEDOUT)), "{what}: {}: {e}", rel.display());
                failed += 1;
            }
        }
    }
    failed
}

fn said(outcome: &Outcome) -> String {
    format!("{}\n{}", outcome.text(), outcome.stderr)
}
