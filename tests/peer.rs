//! Neighbours: what one machine of a local network has read feeds the others, and what those do who lie, vanish or flood.
//!
//! Machines are network namespaces on one bridge (`harness::net`); there is no other network in them.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use harness::origin::{Fault, Link};
use harness::prng::SplitMix64;
use harness::{Announcer, Flist, Gateway, Lan, Mounted, Node, Origin, args, compare, synthetic, wait};
use rustix::process::Signal;

/// Debug builds on two shared cores are slow, and mDNS asks and answers with pauses.
const SOON: Duration = Duration::from_secs(40);
/// Scheduling noise allowed after a deadline.
const SLACK: Duration = Duration::from_secs(10);

/// Somebody who has packed an image: 24 files of 300 KB that share no block.
struct Publisher {
    flist: Flist,
    source: PathBuf,
    cid: String,
}

impl Publisher {
    fn new() -> Self {
        Self::with(24, 300_000)
    }

    fn with(files: usize, size: usize) -> Self {
        let flist = Flist::new();
        let source = flist.home().join("source");
        let tree = harness::tree::Builder::at(&source);
        let mut rng = SplitMix64::new(53);
        for file in 0..files {
            tree.file(name(file), &rng.bytes(size));
        }
        tree.finish();
        let cid = flist.pack(&source);
        Self { flist, source, cid }
    }

    /// A server over its store that goes wrong as it is told, on the network of `node`.
    fn origin(&self, node: &Node) -> Origin {
        node.run(|| Origin::at(node.address().into(), self.flist.store()))
    }

    /// What reading `file` gives, compared with the source: right bytes or an error, never anything else.
    #[track_caller]
    fn read(&self, mounted: &Mounted<'_>, file: usize) -> std::io::Result<()> {
        let bytes = fs::read(mounted.join(name(file)))?;
        assert!(bytes == fs::read(self.source.join(name(file))).unwrap(), "WRONG BYTES in {}", name(file));
        Ok(())
    }
}

fn name(file: usize) -> String {
    format!("file-{file:02}")
}

fn announce(node: &Node, address: SocketAddr) -> Announcer {
    node.run(|| Announcer::of(address))
}

/// Mounts as a machine that has nothing but its neighbours.
#[track_caller]
fn mount<'f>(node: &Node, flist: &'f Flist, cid: &str, options: &[&str]) -> Mounted<'f> {
    let options = [&["--from", "peer:"], options].concat();
    node.run(|| flist.mount_with(cid, &options))
}

/// The sources of a mount and the bytes each gave.
#[track_caller]
fn sources(flist: &Flist) -> Vec<(String, u64)> {
    let mounts = flist.ok(args!["mounts", "--json"]).json();
    let home = flist.home().path().to_string_lossy().into_owned();
    let all = mounts.as_array().expect("a list");
    let ours = all.iter().find(|m| m["mountpoint"].as_str().is_some_and(|at| at.starts_with(&home)));
    let sources = ours.expect("it is mounted")["sources"].as_array().expect("a list").clone();
    let text = |s: &serde_json::Value| s["spec"].as_str().expect("a text").to_owned();
    sources.iter().map(|s| (text(s), s["bytes"].as_u64().expect("a number"))).collect()
}

fn spec(address: impl std::fmt::Display) -> String {
    format!("peer:http://{address}")
}

fn has(flist: &Flist, spec: &str) -> bool {
    sources(flist).iter().any(|(there, _)| there == spec)
}

/// A publishes, B reads everything, A is switched off, C reads everything from B, which nobody told it of.
#[test]
fn a_neighbour_that_has_read_an_image_stands_in_for_its_origin() {
    let lan = Lan::new();
    let (origin, warm, cold, other) = (lan.node(), lan.node(), lan.node(), lan.node());
    let publisher = Flist::new();
    let source = publisher.home().join("source");
    synthetic::seven_megabytes(&source);
    let cid = publisher.pack(&source);
    let gateway = origin.run(|| Gateway::on("0.0.0.0:0", &publisher, &["--announce"]));

    let reader = Flist::new();
    let mounted = mount(&warm, &reader, &cid, &[]);
    compare::assert_same(&source, mounted.path());
    let port = gateway.url().rsplit(':').next().unwrap().to_owned();
    assert!(has(&reader, &spec(format!("{}:{port}", origin.address()))), "{:?}", sources(&reader));
    let pid = mounted.pid();
    mounted.umount();
    wait::for_the_end_of(pid, SOON);
    gateway.stop(Signal::TERM);
    fs::rename(publisher.store(), publisher.home().join("switched-off")).unwrap();

    let listen = format!("{}:8080", warm.address());
    let gateway = warm.run(|| Gateway::of_cache_on(&listen, &reader, &["--announce"]));
    let newcomer = Flist::new();
    let mounted = mount(&cold, &newcomer, &cid, &[]);
    compare::assert_same(&source, mounted.path());
    let gave = sources(&newcomer);
    let all: u64 = gave.iter().map(|(_, bytes)| bytes).sum();
    assert!(gave.iter().any(|(from, bytes)| *from == spec(&listen) && *bytes == all && all > 0), "{gave:?}");

    // The same by name, for who cannot or will not listen to mDNS.
    let by_name = Flist::new();
    let mounted = other.run(|| by_name.mount_with(&cid, &["--from", &format!("http://{listen}")]));
    compare::assert_same(&source, mounted.path());
    gateway.stop(Signal::TERM);
}

#[test]
fn a_mount_waits_for_the_first_neighbour() {
    let lan = Lan::new();
    let (giver, taker) = (lan.node(), lan.node());
    let publisher = Publisher::new();
    let origin = publisher.origin(&giver);
    let flist = Flist::new();
    std::thread::scope(|scope| {
        let mounting = scope.spawn(|| mount(&taker, &flist, &publisher.cid, &["--deadline", "60"]));
        std::thread::sleep(Duration::from_secs(2));
        let _announcer = announce(&giver, origin.address());
        let mounted = mounting.join().unwrap();
        (0..24).for_each(|file| publisher.read(&mounted, file).unwrap());
    });
}

/// As between two machines on one cable, where nobody gives addresses.
#[test]
fn a_neighbour_that_has_only_a_link_local_address_is_asked_there() {
    let lan = Lan::new();
    let (giver, taker) = (lan.node(), lan.node());
    for node in [&giver, &taker] {
        node.forget_ipv4();
    }
    let publisher = Publisher::new();
    let options = ["--announce", "--no-cache"];
    let gateway = giver.run(|| Gateway::on("[::]:8080", &publisher.flist, &options));
    let flist = Flist::new();
    let mounted = mount(&taker, &flist, &publisher.cid, &["--deadline", "60"]);
    compare::assert_same(&publisher.source, mounted.path());
    assert!(
        sources(&flist).iter().any(|(spec, _)| spec.starts_with("peer:http://[fe80:")),
        "{:?}",
        sources(&flist)
    );
    gateway.stop(Signal::TERM);
}

#[test]
fn when_no_neighbour_answers_that_is_told_in_time() {
    let lan = Lan::new();
    let alone = lan.node();
    let (publisher, flist) = (Publisher::new(), Flist::new());
    let limit = Duration::from_secs(4);
    for command in ["mount", "info"] {
        let mut words = args![command, publisher.cid];
        if command == "mount" {
            words.extend(args![flist.mountpoint()]);
        }
        words.extend(args!["--from", "peer:", "--deadline", "4"]);
        let began = Instant::now();
        let outcome = alone.run(|| flist.run_within(limit + SLACK, words.clone())).exits(1);
        assert!(began.elapsed() >= limit, "it did not wait: {}", outcome.stderr);
        for needed in ["no neighbour on the local network has answered", "flist serve --announce"] {
            assert!(outcome.stderr.contains(needed), "no {needed:?}: {}", outcome.stderr);
        }
    }
}

/// Wrong blocks are never read, and who gives them is soon not asked any more, though it stays announced.
#[test]
fn a_neighbour_that_lies_is_set_aside() {
    let lan = Lan::new();
    let (liar, honest, taker) = (lan.node(), lan.node(), lan.node());
    let publisher = Publisher::new();
    let bad = publisher.origin(&liar);
    bad.fails(Fault::FlipBit);
    let only = announce(&liar, bad.address());
    let flist = Flist::new();
    let alone = taker.run(|| {
        flist.run_within(
            Duration::from_secs(6) + SLACK,
            args!["mount", publisher.cid, flist.mountpoint(), "--from", "peer:", "--deadline", "6"],
        )
    });
    assert_eq!(alone.code, 1, "nobody had right bytes: {}", alone.stderr);

    let good = publisher.origin(&honest);
    let _good = announce(&honest, good.address());
    drop(only);
    let mounted = mount(&taker, &flist, &publisher.cid, &["--deadline", "60"]);
    wait::until("the honest one is found", SOON, || has(&flist, &spec(good.address())));
    // Who comes last is asked first.
    let _bad = announce(&liar, bad.address());
    wait::until("both are found", SOON, || has(&flist, &spec(bad.address())));
    (0..12).for_each(|file| publisher.read(&mounted, file).unwrap());
    assert!(mounted.status().wrong >= 3, "it was asked first: {:#?}", mounted.status());
    bad.forget();
    (12..24).for_each(|file| publisher.read(&mounted, file).unwrap());
    assert_eq!(bad.asked().len(), 0, "it was asked again");
}

/// Also where it does not say so: a cable is pulled while it sends.
#[test]
fn a_neighbour_that_vanishes_in_the_middle_is_replaced_by_another() {
    let lan = Lan::new();
    let (first, second, taker) = (lan.node(), lan.node(), lan.node());
    let publisher = Publisher::new();
    let (one, other) = (publisher.origin(&first), publisher.origin(&second));
    for origin in [&one, &other] {
        origin.link(Link { round_trip: Duration::from_millis(20), bytes_per_second: Some(4 << 20) });
    }
    let (_one, _other) = (announce(&first, one.address()), announce(&second, other.address()));
    let flist = Flist::new();
    let mounted = mount(&taker, &flist, &publisher.cid, &["--deadline", "60"]);
    wait::until("both are found", SOON, || {
        has(&flist, &spec(one.address())) && has(&flist, &spec(other.address()))
    });
    publisher.read(&mounted, 0).unwrap();
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| (1..24).try_for_each(|file| publisher.read(&mounted, file)));
        // The one that is asked first.
        let is_first = sources(&flist).into_iter().map(|(spec, _)| spec).nth(1) == Some(spec(one.address()));
        let (asked, node) = if is_first { (&one, &first) } else { (&other, &second) };
        let before = asked.asked().len();
        wait::until("it is asked", SOON, || asked.asked().len() > before + 2 || reading.is_finished());
        node.unplug();
        reading.join().unwrap().unwrap();
    });
    compare::assert_same(&publisher.source, mounted.path());
}

#[test]
fn neighbours_come_and_go() {
    let lan = Lan::new();
    let (giver, taker) = (lan.node(), lan.node());
    // More than is read ahead.
    let publisher = Publisher::with(20, 1_200_000);
    let listen = format!("{}:8080", giver.address());
    let serve = || giver.run(|| Gateway::on(&listen, &publisher.flist, &["--announce", "--no-cache"]));
    let gateway = serve();
    let flist = Flist::new();
    let mounted = mount(&taker, &flist, &publisher.cid, &["--deadline", "30"]);
    publisher.read(&mounted, 0).unwrap();
    assert!(has(&flist, &spec(&listen)), "{:?}", sources(&flist));
    gateway.stop(Signal::TERM);
    wait::until("it said farewell", SOON, || !has(&flist, &spec(&listen)));
    let gateway = serve();
    wait::until("it is back", SOON, || has(&flist, &spec(&listen)));
    publisher.read(&mounted, 1).unwrap();
    // Killed, it says nothing: mDNS asks for it once it does not answer.
    drop(gateway);
    let error = publisher.read(&mounted, 19).expect_err("nobody has it");
    assert!(matches!(error.raw_os_error(), Some(libc::EIO | libc::ETIMEDOUT)), "{error}");
    wait::until("it is found missing", SOON, || !has(&flist, &spec(&listen)));
    let _gateway = serve();
    wait::until("it is back", SOON, || publisher.read(&mounted, 19).is_ok());
}

#[test]
fn a_mount_in_use_takes_neighbours_in_and_lets_them_go() {
    let lan = Lan::new();
    let (giver, taker) = (lan.node(), lan.node());
    let publisher = Publisher::new();
    let (named, found) = (publisher.origin(&giver), publisher.origin(&giver));
    let _found = announce(&giver, found.address());
    let flist = Flist::new();
    let mounted = taker.run(|| flist.mount_with(&publisher.cid, &["--from", &named.url()]));
    for _ in 0..2 {
        flist.ok(args!["source", "add", mounted.path(), "peer:"]);
        wait::until("it is found", SOON, || has(&flist, &spec(found.address())));
        flist.ok(args!["source", "rm", mounted.path(), "peer:"]);
        wait::until("it goes with the rest", SOON, || !has(&flist, &spec(found.address())));
    }
    flist.ok(args!["source", "add", mounted.path(), "peer:"]);
    wait::until("it is found", SOON, || has(&flist, &spec(found.address())));
    flist.ok(args!["source", "rm", mounted.path(), named.url()]);
    // Neighbours are no other sources: they would go with it.
    flist.run(args!["source", "rm", mounted.path(), "peer:"]).exits(1);
    (0..24).for_each(|file| publisher.read(&mounted, file).unwrap());
}

/// Addresses of other networks and of the reader itself, ports of other services, versions to come, and too many of all.
#[test]
fn announcements_that_lead_elsewhere_are_not_followed() {
    let lan = Lan::new();
    let (stranger, giver, taker) = (lan.node(), lan.node(), lan.node());
    let publisher = Publisher::new();
    let origin = publisher.origin(&giver);
    let own = publisher.origin(&taker);
    let newer = publisher.origin(&stranger);
    let _elsewhere: Vec<Announcer> = stranger.run(|| {
        let ssh = SocketAddr::from((stranger.address(), 22));
        let crowd = (20_000..20_012).map(|port| SocketAddr::from((stranger.address(), port)));
        let all = [own.address(), ssh].into_iter().chain(crowd).map(Announcer::of);
        all.chain([Announcer::as_version(newer.address(), "2")]).collect()
    });
    let _giver = announce(&giver, origin.address());
    let flist = Flist::new();
    let mounted = mount(&taker, &flist, &publisher.cid, &["--deadline", "60"]);
    wait::until("the one that works is used", SOON, || {
        let _ = publisher.read(&mounted, 0);
        has(&flist, &spec(origin.address()))
    });
    (0..24).for_each(|file| publisher.read(&mounted, file).unwrap());
    let listed = sources(&flist);
    assert!(listed.len() <= 9, "{listed:?}");
    assert!(own.asked().is_empty() && newer.asked().is_empty(), "{listed:?}");
    assert!(!has(&flist, &spec(format!("{}:22", stranger.address()))), "{listed:?}");
}

#[test]
fn what_cannot_be_announced_is_told_with_what_to_do() {
    let user = Flist::new();
    for listen in ["127.0.0.1:0", "[::1]:0"] {
        let words = args!["serve", "--announce", "--no-cache", "--listen", listen];
        let outcome = user.run_within(SOON, words).exits(1);
        assert!(outcome.stderr.contains("--listen on 0.0.0.0:PORT"), "{}", outcome.stderr);
    }
    let words = args!["serve", "--no-cache", "--from", "peer:"];
    let outcome = user.run_within(SOON, words).exits(1);
    assert!(outcome.stderr.contains("peer:"), "{}", outcome.stderr);
}
