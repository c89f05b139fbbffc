//! `flist source`: the sources of a mount change while it is read.

use std::fs;
use std::time::{Duration, Instant};

use harness::car::Car;
use harness::origin::Fault;
use harness::{Flist, Mounted, Origin, Outcome, Rpc, args, compare, process, synthetic, tree, wait};

const SOON: Duration = Duration::from_secs(20);

/// A user who has packed eight files of 600 KB for others.
fn publisher() -> (Flist, String) {
    let flist = Flist::new();
    let source = tree::Builder::at(&flist.home().join("source"));
    let mut random = harness::SplitMix64::new(81);
    for n in 0..8 {
        source.file(name(n), &random.bytes(600_000));
    }
    source.finish();
    let cid = flist.pack(&flist.home().join("source"));
    (flist, cid)
}

fn name(file: usize) -> String {
    format!("file-{file}")
}

#[track_caller]
fn read(publisher: &Flist, mounted: &Mounted<'_>, file: usize) -> std::io::Result<()> {
    let bytes = fs::read(mounted.join(name(file)))?;
    let right = fs::read(publisher.home().join("source").join(name(file))).unwrap();
    assert!(bytes == right, "WRONG BYTES in {}", name(file));
    Ok(())
}

#[track_caller]
fn specs(list: &Outcome) -> Vec<String> {
    let list = list.json();
    list.as_array().unwrap().iter().map(|source| source["spec"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_read_that_waits_for_a_dead_source_is_served_by_one_that_is_added() {
    let (publisher, cid) = publisher();
    let good = Origin::over(publisher.store());
    for fault in [None, Some(Fault::Stall)] {
        let (dead, reader) = (Origin::over(publisher.store()), Flist::new());
        let mounted = reader.mount_with(&cid, &["--from", &dead.url(), "--deadline", "120"]);
        // Nobody listens, or somebody who says nothing.
        match fault {
            None => dead.down(),
            Some(fault) => dead.fails(fault),
        }
        std::thread::scope(|scope| {
            let reading = scope.spawn(|| read(&publisher, &mounted, 5));
            std::thread::sleep(Duration::from_secs(2));
            assert!(!reading.is_finished(), "{fault:?}: nobody could have given it");
            let added = Instant::now();
            let list = reader.ok(args!["source", "add", mounted.path(), good.url(), "--json"]);
            assert_eq!(specs(&list), [dead.url(), good.url()]);
            reading.join().unwrap().unwrap();
            assert!(added.elapsed() < Duration::from_secs(25), "{fault:?}: after {:?}", added.elapsed());
        });
        reader.ok(args!["source", "rm", mounted.path(), dead.url()]);
        compare::assert_same(&publisher.home().join("source"), mounted.path());
        let list = reader.ok(args!["source", "list", mounted.path(), "--json"]).json();
        assert_eq!(list.as_array().unwrap().len(), 1, "{list:#}");
        assert_eq!(list[0]["spec"], good.url());
        assert!(
            list[0]["bytes"].as_u64().unwrap() > 600_000 && list[0]["requests"].as_u64().unwrap() > 0,
            "{list:#}"
        );
        let table = reader.ok(args!["source", "list", mounted.path()]).text();
        assert!(table.contains(&good.url()) && !table.contains(&dead.url()), "{table}");
        mounted.umount();
    }
}

/// All that is left of the origin is the cache: metadata and two files.
#[test]
fn a_mount_that_lives_from_its_cache_alone_gets_the_rest_from_a_source_that_is_added() {
    let (publisher, cid) = publisher();
    let origin = Origin::over(publisher.store());
    let reader = Flist::new();
    let options = ["--from", &origin.url(), "--deadline", "60", "--mode", "fuse"];
    let mounted = reader.mount_with(&cid, &options);
    (0..2).for_each(|file| read(&publisher, &mounted, file).unwrap());
    let pid = mounted.pid();
    mounted.umount();
    wait::for_the_end_of(pid, SOON);
    origin.down();

    let mounted = reader.mount_with(&cid, &options);
    (0..2).for_each(|file| read(&publisher, &mounted, file).unwrap());
    let car = Car::of(publisher.store(), &cid, |_| true).write(&publisher.home().join("a.car"));
    std::thread::scope(|scope| {
        let readings: Vec<_> = (2..8)
            .map(|n| {
                scope.spawn({
                    let (p, m) = (&publisher, &mounted);
                    move || read(p, m, n)
                })
            })
            .collect();
        std::thread::sleep(Duration::from_secs(2));
        // Read-ahead may have brought more than was read.
        assert!(readings.iter().any(|reading| !reading.is_finished()), "nobody could have given all of it");
        reader.ok(args!["source", "add", mounted.path(), car]);
        readings.into_iter().for_each(|reading| reading.join().unwrap().unwrap());
    });
    let trouble = reader.ok(args!["source", "list", mounted.path(), "--json"]).json();
    assert!(trouble[0]["trouble"].as_str().is_some_and(|told| told.contains("refused")), "{trouble:#}");
    reader.ok(args!["source", "rm", mounted.path(), origin.url()]);
    compare::assert_same(&publisher.home().join("source"), mounted.path());
}

#[test]
fn every_kind_of_source_can_be_added_and_removed() {
    let (publisher, cid) = publisher();
    let origin = Origin::over(publisher.store());
    let reader = Flist::new();
    let mounted = reader.mount_with(&cid, &["--from", &origin.url(), "--deadline", "30", "--mode", "fuse"]);
    let car = Car::of(publisher.store(), &cid, |_| true).write(&publisher.home().join("a.car"));
    let node = Rpc::start();
    harness::publisher::publish(&publisher, &cid, &node.spec(), &[]);
    origin.fails(Fault::Status(404));
    for (n, spec) in [publisher.spec(), car, node.spec()].into_iter().enumerate() {
        reader.ok(args!["source", "add", mounted.path(), spec]);
        read(&publisher, &mounted, n).unwrap();
        let list = reader.ok(args!["source", "list", mounted.path(), "--json"]).json();
        assert!(list[1]["bytes"].as_u64().unwrap() > 0, "{list:#}");
        reader.ok(args!["source", "rm", mounted.path(), spec]);
    }
    origin.heal();
    read(&publisher, &mounted, 3).unwrap();
}

#[test]
fn relative_paths_mean_what_they_mean_to_who_writes_them() {
    let (flist, cid) = Flist::with_image();
    let mounted = flist.mount(&cid);
    fs::create_dir(flist.home().join("other")).unwrap();
    let here = |words: &[&str]| {
        let mut command = flist.command(words.iter().map(Into::into));
        command.current_dir(flist.home().path());
        harness::process::run(&mut command, SOON).ok()
    };
    let dir = mounted.path().to_str().unwrap();
    let added = here(&["source", "add", dir, "dir:other", "--json"]);
    assert_eq!(specs(&added)[1], format!("dir:{}", flist.home().join("other").display()));
    here(&["source", "rm", dir, "dir:other"]);
}

#[test]
fn what_cannot_be_changed_is_refused_with_the_reason() {
    let (flist, cid) = Flist::with_image();
    let mounted = flist.mount(&cid);
    let dir = mounted.path();
    let elsewhere = flist.home().dir("elsewhere");
    let inside = format!("dir:{}", dir.join("d").display());
    let spec = flist.spec();
    let refused = [
        (args!["source", "rm", dir, spec], 1, "--force"),
        (args!["source", "rm", dir, "http://127.0.0.1:1"], 1, "is not one of the sources"),
        (args!["source", "add", dir, spec], 1, "asked already"),
        (args!["source", "add", dir, inside], 1, "would wait for itself"),
        (args!["source", "add", dir, "car:/nowhere/a.car"], 1, "there is no file"),
        (args!["source", "add", dir, "hint:http://10.0.0.1"], 1, "not a public address"),
        (args!["source", "add", dir, "nonsense"], 2, "unknown source"),
        (args!["source", "list", elsewhere], 1, "no flist is mounted"),
        (args!["source", "add", elsewhere, spec], 1, "no flist is mounted"),
        (args!["source", "list", flist.home().join("missing/x")], 1, "missing"),
    ];
    for (command, code, words) in refused {
        let outcome = flist.run_within(SOON, command);
        assert_eq!(outcome.code, code, "{}: {}", outcome.command, outcome.stderr);
        assert!(outcome.stderr.contains(words), "{}: no {words:?}: {}", outcome.command, outcome.stderr);
    }
    // Fifteen more, and no more than that.
    for n in 1..16 {
        flist.ok(args!["source", "add", dir, format!("http://127.0.0.1:{n}")]);
    }
    let outcome = flist.run_within(SOON, args!["source", "add", dir, "http://127.0.0.1:99"]);
    assert_eq!(outcome.code, 1);
    assert!(outcome.stderr.contains("16 sources are asked already"), "{}", outcome.stderr);
}

#[test]
fn without_any_source_what_is_in_the_cache_can_be_read_and_the_rest_fails_at_once() {
    let (publisher, cid) = publisher();
    let origin = Origin::over(publisher.store());
    let reader = Flist::new();
    let mounted = reader.mount_with(&cid, &["--from", &origin.url(), "--mode", "fuse", "--deadline", "60"]);
    read(&publisher, &mounted, 0).unwrap();
    reader.ok(args!["source", "rm", mounted.path(), origin.url(), "--force"]);
    read(&publisher, &mounted, 0).unwrap();
    let began = Instant::now();
    assert_eq!(read(&publisher, &mounted, 4).unwrap_err().raw_os_error(), Some(libc::EIO));
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    assert_eq!(
        reader.ok(args!["source", "list", mounted.path(), "--json"]).json().as_array().unwrap().len(),
        0
    );
    // A source that was removed comes back without its history.
    reader.ok(args!["source", "add", mounted.path(), origin.url()]);
    read(&publisher, &mounted, 4).unwrap();
}

#[test]
fn a_mount_that_is_read_by_many_survives_any_change_of_its_sources() {
    let publisher = Flist::new();
    let source = publisher.home().join("source");
    synthetic::seven_megabytes(&source);
    let cid = publisher.pack(&source);
    let origins = [Origin::over(publisher.store()), Origin::over(publisher.store())];
    let reader = Flist::new();
    let mounted = reader.mount_with(&cid, &["--from", &origins[0].url(), "--deadline", "60"]);
    std::thread::scope(|scope| {
        let readers: Vec<_> =
            (0..3).map(|_| scope.spawn(|| compare::assert_same(&source, mounted.path()))).collect();
        for turn in 0..6 {
            let [old, new] = [turn % 2, (turn + 1) % 2];
            reader.ok(args!["source", "add", mounted.path(), origins[new].url()]);
            reader.ok(args!["source", "rm", mounted.path(), origins[old].url()]);
        }
        readers.into_iter().for_each(|reader| reader.join().unwrap());
    });
    let pid = mounted.pid();
    mounted.umount();
    wait::for_the_end_of(pid, SOON);
}

/// Runs as nobody in a mount namespace whose /proc shows nobody the processes of others.
const HIDDEN: &str = r#"
    mknod "$4" c 10 229 && chmod 666 "$4" && mount --bind "$4" /dev/fuse &&
    mount -t proc -o hidepid=invisible none /proc &&
    setpriv --reuid 65534 --regid 65534 --clear-groups flist mount "$1" "$2" &&
    { unshare --mount flist source add "$2" "$3"; code=$?; umount "$2"; exit $code; }
"#;

/// In another mount namespace a path means something else, and a daemon that cannot see where somebody is must not guess.
#[test]
fn a_daemon_that_cannot_see_who_asks_opens_no_path_for_them() {
    let flist = Flist::new();
    let home = flist.home().dir("nobody");
    synthetic::tiny(&home.join("source"));
    fs::create_dir(home.join("mnt")).unwrap();
    process::tool("cp", args![flist.bin(), home.join("flist")]);
    let cid = flist.pack(&home.join("source"));
    process::tool("cp", args!["-a", flist.store(), home.join("store")]);
    process::tool("chown", args!["-hR", "65534:65534", home]);
    let other = format!("dir:{}", flist.store().display());
    let mut command = std::process::Command::new("unshare");
    command.args(["--mount", "sh", "-c", HIDDEN, "sh"]).args(args![
        cid,
        home.join("mnt"),
        other,
        flist.home().join("fuse")
    ]);
    flist.environment(&mut command);
    command.env("G8_FROM", format!("dir:{}", home.join("store").display()));
    command.env("G8_CACHE", home.join("cache")).env("G8_MODE", "fuse");
    command.env("PATH", format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", home.display()));
    let outcome = process::run(&mut command, process::PATIENCE);
    assert_eq!(outcome.code, 1, "{outcome:#?}");
    assert!(outcome.stderr.contains("cannot see which mount namespace"), "{}", outcome.stderr);
    wait::until("its daemon ends with its mount", process::PATIENCE, || flist.processes().is_empty());
}
