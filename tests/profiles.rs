//! Profiles: recorded from what a command reads, named in references, followed by mounts, and harmless when they are wrong.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use harness::origin::{Fault, Link};
use harness::{Flist, Mounted, Origin, Outcome, args, cid, compare, prng::SplitMix64, process, rootfs, wait};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(40);
const FILES: usize = 30;
const FAR: Link = Link { round_trip: Duration::from_millis(20), bytes_per_second: None };

/// A user who has packed a root file system with 30 files of 300 KB that share no block.
struct Publisher {
    flist: Flist,
    cid: String,
}

impl Publisher {
    fn new() -> Self {
        let flist = Flist::new();
        let source = flist.home().join("source");
        rootfs::build(&source, &["/bin/cat"]);
        let tree = harness::tree::Builder::at(&source.join("data"));
        let mut rng = SplitMix64::new(11);
        for file in 0..FILES {
            tree.file(format!("{file:02}"), &rng.bytes(300_000));
        }
        tree.finish();
        let cid = flist.pack(&source);
        Self { flist, cid }
    }

    fn source(&self) -> PathBuf {
        self.flist.home().join("source")
    }

    /// The profile of a command that reads these files: the reference that names it.
    fn record(&self, files: &[usize]) -> String {
        let paths: Vec<String> = files.iter().map(|file| format!("/data/{file:02}")).collect();
        let script = format!("cat {} >/dev/null; echo noise", paths.join(" "));
        let recorded = self.flist.ok(args!["profile", "record", self.cid, "--", "/bin/sh", "-c", script]);
        let reference = recorded.text();
        assert_eq!(recorded.stdout, format!("{reference}\n").as_bytes(), "only the reference is on stdout");
        assert!(reference.starts_with(&format!("{}?profile=bafyrei", self.cid)), "{reference}");
        assert!(recorded.stderr.contains("noise"), "{}", recorded.stderr);
        reference
    }

    fn show(&self, reference: &str) -> Value {
        self.flist.ok(args!["profile", "show", reference, "--json"]).json()
    }

    fn origin(&self) -> Origin {
        let origin = Origin::over(self.flist.store());
        origin.link(FAR);
        origin
    }

    /// Puts an object of our own making into the store: its CID.
    fn put(&self, bytes: &[u8]) -> String {
        let made = self.flist.home().join("made");
        fs::write(&made, bytes).unwrap();
        let sum = process::tool("sha256sum", args![made]).text();
        let byte = |at: usize| u8::from_str_radix(&sum[2 * at..2 * at + 2], 16).unwrap();
        let id = cid::encode(cid::DAG_CBOR, cid::SHA2_256, &(0..32).map(byte).collect::<Vec<_>>());
        let folder = self.flist.store().join(&id[id.len() - 3..id.len() - 1]);
        fs::create_dir_all(&folder).unwrap();
        fs::rename(made, folder.join(&id)).unwrap();
        id
    }
}

/// What `flist mounts` says of the profile of a mount.
fn profile_of(flist: &Flist, mounted: &Mounted<'_>) -> Value {
    let all = flist.ok(args!["mounts", "--json"]).json();
    let own = |mount: &&Value| mount["mountpoint"].as_str() == mounted.path().to_str();
    all.as_array().unwrap().iter().find(own).unwrap()["profile"].clone()
}

/// Waits until no more blocks are coming; what is said then.
fn followed(flist: &Flist, mounted: &Mounted<'_>) -> Value {
    let mut said = Value::Null;
    wait::until("the profile is followed to its end", SOON, || {
        said = profile_of(flist, mounted);
        said["is_under_way"] == false
    });
    said
}

fn data(file: usize) -> String {
    format!("data/{file:02}")
}

#[track_caller]
fn same(publisher: &Publisher, mounted: &Mounted<'_>, file: usize) {
    let bytes = fs::read(mounted.join(data(file))).unwrap();
    assert!(bytes == fs::read(publisher.source().join(data(file))).unwrap(), "WRONG BYTES in {file}");
}

#[test]
fn what_a_command_read_is_there_before_the_next_one_asks() {
    let publisher = Publisher::new();
    let reference = publisher.record(&[20, 3, 11]);
    let shown = publisher.show(&reference);
    assert_eq!(
        (&shown["ref"], &shown["flist"]),
        (&reference.as_str().into(), &publisher.cid.as_str().into())
    );
    assert!(shown["label"].as_str().unwrap().starts_with("/bin/sh -c cat /data/20"), "{shown:#}");
    let text = publisher.flist.ok(args!["profile", "show", shown["profile"].as_str().unwrap()]).text();
    assert!(text.contains(&format!("blocks    {} of ", shown["blocks"].as_array().unwrap().len())), "{text}");
    publisher.flist.ok(args!["check", publisher.cid]);

    let origin = publisher.origin();
    let user = Flist::new();
    let mounted = user.mount_with(&reference, &["--from", &origin.url()]);
    let said = followed(&user, &mounted);
    assert_eq!(said["wanted"].as_u64(), Some(shown["blocks"].as_array().unwrap().len() as u64), "{said:#}");
    assert_eq!((&said["fetched"], &said["trouble"]), (&said["wanted"], &Value::Null), "{said:#}");
    origin.down();
    for file in [20, 3, 11] {
        same(&publisher, &mounted, file);
    }
    origin.up();
    let fetched = mounted.status().bytes_fetched;
    assert!(fetched < FILES as u64 * 300_000, "all of it was fetched: {fetched}");
    compare::assert_same(&publisher.source(), mounted.path());
}

#[test]
fn a_profile_is_left_alone_when_the_user_says_so() {
    let publisher = Publisher::new();
    let reference = publisher.record(&[1]);
    let origin = publisher.origin();
    let user = Flist::new();
    let mounted = user.mount_with(&reference, &["--from", &origin.url(), "--no-profile"]);
    assert_eq!(profile_of(&user, &mounted), Value::Null);
    let profile = reference.split_once("profile=").unwrap().1;
    assert!(origin.asked().iter().all(|asked| asked.cid != profile));
}

#[test]
fn a_wrong_profile_is_told_and_changes_nothing() {
    let publisher = Publisher::new();
    let flist = &publisher.flist;
    let source = flist.home().join("other");
    rootfs::build(&source, &["/bin/true"]);
    let other = flist.pack(&source);
    let foreign = flist.ok(args!["profile", "record", other, "--", "/bin/true"]).text();
    let foreign = foreign.split_once("profile=").unwrap().1.to_owned();
    let link = [&[0xd8, 0x2a, 0x58, 0x25, 0][..], &cid::bytes(&publisher.cid).unwrap()].concat();
    let beyond = [
        b"\xa5dkindmflist-profile".as_slice(),
        b"eflist",
        &link,
        b"elabel`fblocks\x82\x00\x1a\xff\xff\xff\xffgversion\x01",
    ];
    let wrong = [
        (cid::encode(cid::DAG_CBOR, cid::SHA2_256, &[9; 32]), "cannot be had"),
        (publisher.put(b"no profile"), "not canonical dag-cbor"),
        (publisher.cid.clone(), "kind is"),
        (foreign, &*format!("it is one of the flist {other}")),
        (publisher.put(&beyond.concat()), "block 4294967295 of an flist"),
    ];
    let origin = publisher.origin();
    for (profile, words) in &wrong {
        let user = Flist::new();
        let reference = format!("{}?profile={profile}", publisher.cid);
        let mounted = user.mount_with(&reference, &["--from", &origin.url()]);
        let said = followed(&user, &mounted);
        assert!(said["trouble"].as_str().is_some_and(|trouble| trouble.contains(words)), "{words}: {said:#}");
        assert_eq!(said["fetched"], 0);
        compare::assert_same(&publisher.source(), mounted.path());
        let log = fs::read_to_string(user.cache().join("daemon.log")).unwrap();
        assert!(log.contains("a profile is not followed") && log.contains(words), "{log}");
        let published = flist.run(args![
            "publish",
            reference,
            "--to",
            format!("dir:{}/to", flist.home().path().display())
        ]);
        assert_ne!(published.code, 0, "{published:?}");
    }
}

#[test]
fn a_profile_whose_blocks_are_gone_is_harmless() {
    let publisher = Publisher::new();
    let reference = publisher.record(&[4, 5, 6, 7]);
    let origin = publisher.origin();
    let user = Flist::new();
    // Raw blocks that are asked for one by one are the data.
    origin.fails_where(|cid| cid.starts_with("bafkrei").then_some(Fault::Status(404)));
    let mounted = user.mount_with(&reference, &["--from", &origin.url()]);
    let said = followed(&user, &mounted);
    assert!(said["fetched"].as_u64() < said["wanted"].as_u64(), "{said:#}");
    origin.heal();
    compare::assert_same(&publisher.source(), mounted.path());
}

/// A megabyte a second: the profile takes many seconds, and what is under way of it no more than two.
fn slow(publisher: &Publisher) -> (Origin, String) {
    let reference = publisher.record(&(0..FILES - 1).collect::<Vec<_>>());
    let origin = publisher.origin();
    origin.link(Link { bytes_per_second: Some(1_000_000), ..FAR });
    (origin, reference)
}

#[test]
fn who_reads_something_else_does_not_wait_for_the_profile() {
    let publisher = Publisher::new();
    let (origin, reference) = slow(&publisher);
    let user = Flist::new();
    let mounted = user.mount_with(&reference, &["--from", &origin.url()]);
    same(&publisher, &mounted, FILES - 1);
    let said = profile_of(&user, &mounted);
    assert_eq!(said["is_under_way"], true, "{said:#}");
    // One of its last blocks is asked for once, now.
    same(&publisher, &mounted, FILES - 2);
    origin.link(FAR);
    assert_eq!(followed(&user, &mounted)["trouble"], Value::Null);
    let mut asked: Vec<String> = origin.asked().into_iter().map(|asked| asked.cid).collect();
    asked.sort();
    let before = asked.len();
    asked.dedup();
    assert_eq!(before - asked.len(), 0, "something was asked for twice");
}

#[test]
fn a_profile_ends_with_its_mount() {
    let publisher = Publisher::new();
    let (origin, reference) = slow(&publisher);
    let user = Flist::new();
    let from = ["--from", &origin.url()];
    // The daemon lives on.
    let stays = user.mount_with(&publisher.cid, &from);
    user.mount_with(&reference, &from).umount();
    origin.link(FAR);
    let asked = || origin.asked().len();
    let mut before = asked();
    let began = Instant::now();
    wait::until("nothing more is asked for", SOON, || {
        std::thread::sleep(Duration::from_secs(1));
        std::mem::replace(&mut before, asked()) == asked() && began.elapsed() > Duration::from_secs(3)
    });
    assert!(before < FILES, "it went on: {before} were asked for");
    same(&publisher, &stays, FILES - 1);
}

#[test]
fn a_profile_is_published_with_its_flist_and_kept_by_tags() {
    let publisher = Publisher::new();
    let reference = publisher.record(&[8, 9]);
    let profile = reference.split_once("profile=").unwrap().1;
    let flist = &publisher.flist;
    flist.ok(args!["tag", "mine", reference]);
    let place = |name: &str| flist.home().join(name).display().to_string();
    let sinks = [format!("dir:{}", place("to")), format!("car:{}", place("to.car"))];
    for sink in &sinks {
        let report = flist.ok(args!["publish", "mine", "--to", sink, "--json"]).json();
        assert_eq!(report[0]["profile"], profile, "{report:#}");
        let user = Flist::new();
        let mounted = user.mount_with(&reference, &["--from", sink]);
        let said = followed(&user, &mounted);
        assert_eq!((&said["fetched"], &said["trouble"]), (&said["wanted"], &Value::Null), "{said:#}");
        same(&publisher, &mounted, 8);
    }
    let car = fs::read(place("to.car")).unwrap();
    let header = &car[..200];
    for root in [publisher.cid.as_str(), profile] {
        let id = cid::bytes(root).unwrap();
        assert!(header.windows(id.len()).any(|part| part == id), "{root} is no root of the archive");
    }
    let without = format!("dir:{}", place("without"));
    flist.ok(args!["publish", reference, "--no-profile", "--to", without]);
    let user = Flist::new();
    let mounted = user.mount_with(&reference, &["--from", &without]);
    let trouble = followed(&user, &mounted)["trouble"].clone();
    assert!(trouble.as_str().is_some_and(|trouble| trouble.contains("cannot be had")), "{trouble}");
}

#[test]
fn what_cannot_be_recorded_or_shown_says_why() {
    let publisher = Publisher::new();
    let flist = &publisher.flist;
    let explains = |outcome: Outcome, words: &str| {
        assert_ne!(outcome.code, 0, "{}", outcome.command);
        assert!(outcome.stderr.contains(words), "{}: no {words:?}: {}", outcome.command, outcome.stderr);
    };
    explains(flist.run(args!["profile", "show", publisher.cid]), "is no profile: name one");
    explains(flist.run(args!["profile", "record", publisher.cid]), "no entrypoint");
    let failed = flist.ok(args!["profile", "record", publisher.cid, "--", "/bin/sh", "-c", "exit 3"]);
    assert!(failed.stderr.contains("ended with code 3"), "{}", failed.stderr);
    assert!(failed.text().contains("?profile="));
}
