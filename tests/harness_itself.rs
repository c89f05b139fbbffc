//! The judges themselves: a comparison that overlooks something would make every other test worthless.

use std::fs;
use std::os::unix::fs::{FileExt, lchown, symlink};
use std::path::Path;

use harness::oddities::{self, Scale};
use harness::tree::Builder;
use harness::{Place, SplitMix64, args, cid, compare, process, store};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, XattrFlags, lsetxattr, utimensat};

#[test]
fn a_tree_equals_itself_and_its_faithful_copy() {
    let place = Place::new();
    let (source, copy) = (place.join("source"), place.join("copy"));
    oddities::build(&source, Scale { wide: 500, levels: 60 });
    compare::assert_same(&source, &source);
    process::tool("cp", args!["-a", source, copy]);
    compare::assert_same(&source, &copy);
}

#[test]
fn a_path_longer_than_path_max_can_be_planted_and_compared() {
    let place = Place::new();
    oddities::build(&place.join("a"), Scale { wide: 10, levels: 200 });
    compare::assert_same(&place.join("a"), &place.join("a"));
}

type Change = fn(&Path);

#[test]
fn the_comparison_sees_every_kind_of_change() {
    let place = Place::new();
    let (a, b) = (place.join("a"), place.join("b"));
    let mut tree = Builder::at(&a);
    tree.dir("dir");
    tree.file("file", &[7; 3 << 20]);
    tree.hardlink("file", "dir/link");
    tree.symlink("symlink", "target");
    tree.node("device", rustix::fs::FileType::CharacterDevice, 1, 3);
    tree.sparse("sparse", 1 << 31, &[(1 << 30, b"island")]);
    tree.xattr("file", "user.a", b"1");
    tree.time("dir", 5, 5);
    tree.finish();
    let changes: [(&str, Change); 13] = [
        ("only in the second", |b| fs::write(b.join("more"), b"").unwrap()),
        ("only in the first", |b| fs::remove_file(b.join("device")).unwrap()),
        ("contents differ at byte 2000000", |b| write_at(&b.join("file"), 2_000_000)),
        ("contents differ at byte 2000000000", |b| write_at(&b.join("sparse"), 2_000_000_000)),
        ("size", |b| fs::write(b.join("file"), b"short").unwrap()),
        ("extended attribute \"user.a\"", |b| set_xattr(&b.join("file"), "user.a", b"2")),
        ("extended attribute \"trusted.b\"", |b| set_xattr(&b.join("symlink"), "trusted.b", b"")),
        ("names of one inode", |b| unlink_and_copy(&b.join("dir/link"))),
        ("uid", |b| lchown(b.join("symlink"), Some(65_536), None).unwrap()),
        ("mode", |b| process_chmod(&b.join("dir"))),
        ("target", |b| retarget(&b.join("symlink"))),
        ("device", |b| renode(&b.join("device"))),
        ("mtime", |b| touch(&b.join("dir"))),
    ];
    for (expected, change) in changes {
        process::tool("cp", args!["-a", a, b]);
        compare::assert_same(&a, &b);
        change(&b);
        let found: Vec<String> = compare::trees(&a, &b).iter().map(ToString::to_string).collect();
        assert!(found.iter().any(|d| d.contains(expected)), "overlooked: {expected}; found {found:?}");
        fs::remove_dir_all(&b).unwrap();
    }
}

/// The CID of `hello world` as raw bytes, from another implementation.
const HELLO_WORLD: &str = "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e";

#[test]
fn a_damaged_object_is_found_and_repaired() {
    let place = Place::new();
    let object = place.join(HELLO_WORLD);
    fs::write(&object, b"hello world").unwrap();
    let other = place.join(".other");
    fs::write(&other, b"another").unwrap();
    store::assert_whole(place.path());
    use store::How::{Empty, Extend, FlipBit, Remove, Swap, Truncate};
    for how in [FlipBit(12_345), Truncate, Extend, Empty, Swap(other), Remove] {
        let damage = store::damage(&object, &how);
        assert_ne!(fs::read(&object).unwrap_or_default(), b"hello world", "{how:?}");
        drop(damage);
        store::assert_whole(place.path());
    }
    assert_eq!(cid::codec(HELLO_WORLD), Some(cid::RAW));
}

fn write_at(path: &Path, offset: u64) {
    fs::OpenOptions::new().write(true).open(path).unwrap().write_all_at(b"X", offset).unwrap();
}

fn set_xattr(path: &Path, name: &str, value: &[u8]) {
    lsetxattr(path, name, value, XattrFlags::empty()).unwrap();
}

fn unlink_and_copy(path: &Path) {
    let bytes = fs::read(path).unwrap();
    fs::remove_file(path).unwrap();
    fs::write(path, bytes).unwrap();
}

fn process_chmod(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o1755)).unwrap();
}

fn retarget(path: &Path) {
    fs::remove_file(path).unwrap();
    symlink("another", path).unwrap();
}

fn renode(path: &Path) {
    fs::remove_file(path).unwrap();
    process::tool("mknod", args!["-m", "640", path, "c", "1", "5"]);
}

fn touch(path: &Path) {
    let time = Timespec { tv_sec: 5, tv_nsec: 6 };
    let times = Timestamps { last_access: time, last_modification: time };
    utimensat(CWD, path, &times, AtFlags::empty()).unwrap();
}

/// The fault origin as a server of files: what nydus and curl ask for in the benchmarks.
#[test]
fn an_origin_gives_files_and_ranges_of_them_and_counts() {
    let place = Place::new();
    let bytes = SplitMix64::new(5).bytes(3_000_000);
    fs::write(place.join("blob"), &bytes).unwrap();
    let origin = harness::Origin::over(&place.join("no-store"));
    origin.gives_files_of(place.path());
    let ask = |range: &str, path: &str| {
        let url = format!("{}{path}", origin.url());
        let mut arguments = args!["-s", "-o", "-", "-w", "%{stderr}%{http_code}", url];
        arguments
            .extend(args!["-H", format!("Range: bytes={range}")].into_iter().filter(|_| !range.is_empty()));
        let said = process::tool("curl", arguments);
        (said.stderr, said.stdout)
    };
    for (range, path, status, expected) in [
        ("", "/files/blob", "200", &bytes[..]),
        ("0-0", "/blob", "206", &bytes[..1]),
        ("1000-1999999", "/v2/some/image/blobs/sha256:blob", "206", &bytes[1000..2_000_000]),
        ("2999999-", "/blob", "206", &bytes[2_999_999..]),
        ("-7", "/blob", "206", &bytes[2_999_993..]),
        ("2999990-9999999", "/blob", "206", &bytes[2_999_990..]),
        ("", "/../blob/.hidden", "404", b"no"),
    ] {
        let (said, got) = ask(range, path);
        assert!(said == status && got == expected, "{range} of {path}: {said}, {} bytes", got.len());
    }
    let traffic = origin.traffic();
    assert_eq!((traffic.connections, traffic.requests), (7, 7));
    assert!(traffic.bytes > 4_999_000, "{traffic:?}");
}

/// What the benchmarks believe of it: never faster than it says, and not much slower.
#[test]
fn a_link_takes_its_round_trips_and_its_bandwidth() {
    use std::time::{Duration, Instant};
    let place = Place::new();
    fs::write(place.join("blob"), SplitMix64::new(6).bytes(5_000_000)).unwrap();
    let origin = harness::Origin::over(place.path());
    origin.gives_files_of(place.path());
    let round_trip = Duration::from_millis(50);
    origin.link(harness::origin::Link { round_trip, bytes_per_second: Some(10_000_000) });
    let began = Instant::now();
    let url = format!("{}/blob", origin.url());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| process::tool("curl", args!["-s", "-o", "/dev/null", url]));
        }
    });
    let took = began.elapsed();
    let least = 2 * round_trip + Duration::from_millis(1000);
    assert!(took >= least, "10 MB took {took:?}");
    assert!(took < least + Duration::from_secs(20), "10 MB took {took:?}");
}
