//! A real root filesystem: Debian minbase with python3-minimal, as mmdebstrap makes it on this machine.

use std::fs;
use std::time::Duration;

use harness::kernel_mount::judge;
use harness::{Flist, Gateway, Lan, Place, args, compare, debian, skip, store, wait};
use rustix::process::Signal;

#[test]
fn debian_compares_equal_by_every_way_and_reads_lazily() {
    let source = match debian::tree() {
        Ok(source) => source,
        Err(why) => return skip::skip(&why),
    };
    let (flist, place) = (Flist::new(), Place::new());
    let cid = flist.pack(&source);
    let total = store::size(flist.store());

    // First of all, with an empty cache: one small file.
    let mounted = flist.mount(&cid);
    assert_eq!(
        fs::read(mounted.join("etc/debian_version")).unwrap(),
        fs::read(source.join("etc/debian_version")).unwrap()
    );
    let fetched = mounted.status().bytes_fetched;
    assert!(fetched * 100 < total * 3, "one small file fetches {fetched} of {total} bytes");
    compare::assert_same(&source, mounted.path());
    mounted.umount();

    compare::assert_same(&source, judge(&flist, &cid, &place).path());
    flist.ok(args!["check", cid]);
    let copy = place.join("copy");
    flist.ok(args!["unpack", cid, copy]);
    compare::assert_same(&source, &copy);
    assert_eq!(cid, flist.pack_with(&copy, &["--threads", "1"]), "the unpacked copy is the same image");

    // From another machine, so to say: nothing of it is here.
    let (gateway, reader) = (Gateway::of(&flist), Flist::new());
    compare::assert_same(&source, reader.mount_with(&cid, &["--from", gateway.url()]).path());

    let archive = format!("car:{}", place.join("debian.car").display());
    flist.ok(args!["publish", cid, "--to", archive]);
    let reader = Flist::new();
    compare::assert_same(&source, reader.mount_with(&cid, &["--from", &archive]).path());

    let script = "import os, sys; print(sys.version_info[0], os.getpid(), sorted(os.listdir('/'))[:2])";
    let outcome = flist.ok(args!["run", cid, "--", "/usr/bin/python3", "-c", script]);
    assert!(
        outcome.text().starts_with("3 ") && outcome.text().contains("'bin', 'boot'"),
        "{}",
        outcome.text()
    );
    flist.run(args!["run", cid, "--", "/usr/bin/python3", "-c", "raise SystemExit(42)"]).exits(42);
    let release = flist.ok(args!["cat", cid, "/usr/lib/os-release"]).stdout;
    assert_eq!(release, fs::read(source.join("usr/lib/os-release")).unwrap());
}

/// Who has read it feeds the next one: the origin is switched off, and nobody is told of anybody.
#[test]
fn debian_comes_from_a_neighbour_when_its_origin_is_gone() {
    let source = match debian::tree() {
        Ok(source) => source,
        Err(why) => return skip::skip(&why),
    };
    let publisher = Flist::new();
    let cid = publisher.pack(&source);
    let lan = Lan::new();
    let (origin, warm, cold) = (lan.node(), lan.node(), lan.node());
    let gateway = origin.run(|| Gateway::on("0.0.0.0:0", &publisher, &["--announce"]));

    let reader = Flist::new();
    let mounted = warm.run(|| reader.mount_with(&cid, &["--from", "peer:"]));
    compare::assert_same(&source, mounted.path());
    let pid = mounted.pid();
    mounted.umount();
    wait::for_the_end_of(pid, Duration::from_secs(40));
    gateway.stop(Signal::TERM);
    fs::rename(publisher.store(), publisher.home().join("switched-off")).unwrap();

    let listen = format!("{}:8080", warm.address());
    let _gateway = warm.run(|| Gateway::of_cache_on(&listen, &reader, &["--announce"]));
    let newcomer = Flist::new();
    let mounted = cold.run(|| newcomer.mount_with(&cid, &["--from", "peer:"]));
    compare::assert_same(&source, mounted.path());
}
