//! `flist serve` gives what the cache of this user holds, then what the stores have; and what becomes of it when the daemon
//! that owns the cache dies.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use harness::{Flist, Gateway, Lan, Node, Origin, args, compare, store, synthetic, wait};
use rustix::process::{Pid, Signal, kill_process};

/// Debug builds on two shared cores are slow.
const SOON: Duration = Duration::from_secs(30);

/// An image in a store, and somebody who has read all of it from elsewhere.
struct Warm {
    publisher: Flist,
    source: std::path::PathBuf,
    cid: String,
    reader: Flist,
}

impl Warm {
    fn new() -> Self {
        let publisher = Flist::new();
        let source = publisher.home().join("source");
        synthetic::seven_megabytes(&source);
        let cid = publisher.pack(&source);
        let origin = Origin::over(publisher.store());
        let reader = Flist::new();
        let mounted = reader.mount_with(&cid, &["--from", &origin.url()]);
        compare::assert_same(&source, mounted.path());
        let pid = mounted.pid();
        mounted.umount();
        wait::for_the_end_of(pid, SOON);
        Self { publisher, source, cid, reader }
    }

    /// Mounts the image from `url` as somebody new, and compares it.
    #[track_caller]
    fn is_served_by(&self, url: &str) {
        let other = Flist::new();
        let mounted = other.mount_with(&self.cid, &["--from", url]);
        compare::assert_same(&self.source, mounted.path());
    }
}

/// The process that serves a cache.
fn daemon_of(cache: &Path) -> Option<i32> {
    let stream = UnixStream::connect(cache.join("daemon.sock")).ok()?;
    let peer = rustix::net::sockopt::socket_peercred(&stream).ok()?;
    Some(peer.pid.as_raw_nonzero().get())
}

/// What a gateway answers, the head and the body.
fn ask(mut stream: impl Read + Write, request: &str) -> (String, Vec<u8>) {
    stream.write_all(format!("{request}\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes()).unwrap();
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    let end = all.windows(4).position(|w| w == b"\r\n\r\n").expect("a head");
    (String::from_utf8_lossy(&all[..end]).into_owned(), all[end + 4..].to_vec())
}

fn over_http(url: &str, cid: &str) -> (String, Vec<u8>) {
    let stream = TcpStream::connect(url.trim_start_matches("http://")).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    ask(stream, &format!("GET /ipfs/{cid}?format=raw HTTP/1.1"))
}

#[test]
fn what_was_read_is_served_when_its_origin_is_gone() {
    let warm = Warm::new();
    // Nobody has named a store, and the default one is not there.
    let gateway = Gateway::of_cache(&warm.reader);
    warm.is_served_by(gateway.url());
    let missing = "bafkreifzjut3te7nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e";
    let (head, _) = over_http(gateway.url(), missing);
    assert!(head.starts_with("HTTP/1.1 404"), "{head}");
    let pid = daemon_of(warm.reader.cache()).expect("the daemon serves with it");
    gateway.stop(Signal::TERM);
    // It has neither mount nor client left.
    wait::for_the_end_of(pid, SOON);
    assert!(!warm.reader.cache().join("blocks.sock").exists());
}

#[test]
fn without_its_cache_a_node_serves_its_stores_alone() {
    let warm = Warm::new();
    let gateway = Gateway::with(&warm.reader, &["--no-cache", "--from", &warm.publisher.spec()]);
    warm.is_served_by(gateway.url());
    assert_eq!(daemon_of(warm.reader.cache()), None, "nobody needed a daemon");
    drop(gateway);
    let other = Flist::new();
    let gateway = Gateway::with(
        &warm.reader,
        &["--no-cache", "--from", &format!("dir:{}", other.home().dir("none").display())],
    );
    let (head, _) = over_http(gateway.url(), &warm.cid);
    assert!(head.starts_with("HTTP/1.1 404"), "{head}");
}

/// What strangers take is on a socket that only this user reaches, and asks the daemon for nothing but what it has.
#[test]
fn the_socket_of_the_cache_is_a_gateway_for_this_user_alone() {
    let warm = Warm::new();
    let _gateway = Gateway::of_cache(&warm.reader);
    let socket = warm.reader.cache().join("blocks.sock");
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    let objects = store::objects(warm.publisher.store());
    let asked = |request: &str| ask(UnixStream::connect(&socket).unwrap(), request);
    let mut whole = 0;
    for (cid, path) in &objects {
        let (head, body) = asked(&format!("GET /ipfs/{cid}?format=raw HTTP/1.1"));
        if head.starts_with("HTTP/1.1 200") {
            assert!(body == fs::read(path).unwrap(), "WRONG BYTES of {cid}");
            whole += 1;
        } else {
            assert!(head.starts_with("HTTP/1.1 404"), "{head}");
        }
    }
    // All but what no mount reads: the list of all blocks.
    assert_eq!(whole, objects.len() - 1);
    let root = &warm.cid;
    let known = format!("GET /ipfs/{root}?format=raw HTTP/1.1\r\nIf-None-Match: \"{root}.raw\"");
    for (request, status) in [
        (format!("HEAD /ipfs/{root}?format=raw HTTP/1.1"), "200"),
        (known, "304"),
        (format!("GET /ipfs/{root} HTTP/1.1\r\nAccept: application/vnd.ipld.raw"), "200"),
        ("GET /ipfs/nonsense?format=raw HTTP/1.1".into(), "400"),
        (format!("GET /ipfs/{root}?format=raw HTTP/1.1\r\nContent-Length: 9"), "413"),
        (format!("POST /ipfs/{root}?format=raw HTTP/1.1"), "405"),
    ] {
        let (head, _) = asked(&request);
        assert_eq!(&head[9..12], status, "{request}: {head}");
    }
}

#[test]
fn a_gateway_whose_daemon_is_killed_serves_its_stores_and_takes_the_cache_up_again() {
    let warm = Warm::new();
    let other = warm.reader.home().join("other");
    synthetic::tiny(&other);
    let stored = warm.reader.pack(&other);
    let gateway = Gateway::of(&warm.reader);
    let daemon = daemon_of(warm.reader.cache()).expect("it serves the cache");
    assert!(over_http(gateway.url(), &warm.cid).0.starts_with("HTTP/1.1 200"));
    for _ in 0..2 {
        let daemon = daemon_of(warm.reader.cache()).unwrap_or(daemon);
        kill_process(Pid::from_raw(daemon).unwrap(), Signal::KILL).unwrap();
        let (head, _) = over_http(gateway.url(), &stored);
        assert!(head.starts_with("HTTP/1.1 200"), "the store is still there: {head}");
        wait::until("another daemon serves the cache", SOON, || {
            daemon_of(warm.reader.cache()).is_some_and(|pid| pid != daemon)
        });
        wait::until("the cache is served again", SOON, || {
            over_http(gateway.url(), &some_block(&warm)).0.starts_with("HTTP/1.1 200")
        });
    }
    warm.is_served_by(gateway.url());
    gateway.stop(Signal::TERM);
}

/// A block that the gateway was not asked for yet: it remembers those it gave.
fn some_block(warm: &Warm) -> String {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let raw: Vec<String> = store::objects(warm.publisher.store()).into_iter().map(|(cid, _)| cid).collect();
    let raw: Vec<&String> = raw.iter().filter(|cid| cid.starts_with("bafkrei")).collect();
    raw[NEXT.fetch_add(1, Relaxed) % raw.len()].clone()
}

/// A mount of this user goes on while strangers are served, and the other way round.
#[test]
fn a_gateway_and_mounts_share_one_daemon() {
    let warm = Warm::new();
    let gateway = Gateway::of_cache(&warm.reader);
    let pid = daemon_of(warm.reader.cache()).expect("it serves the cache");
    let mounted = warm.reader.mount_with(&warm.cid, &["--from", gateway.url()]);
    assert_eq!(mounted.pid(), pid);
    compare::assert_same(&warm.source, mounted.path());
    gateway.stop(Signal::INT);
    compare::assert_same(&warm.source, mounted.path());
    mounted.umount();
    wait::for_the_end_of(pid, SOON);
}

#[test]
fn a_cache_that_cannot_be_had_is_told_with_what_to_do() {
    let user = Flist::new();
    fs::write(user.cache(), b"a file").unwrap();
    let outcome = user.run_within(SOON, args!["serve", "--listen", "127.0.0.1:0"]).exits(1);
    for needed in ["--no-cache", &*user.cache().to_string_lossy()] {
        assert!(outcome.stderr.contains(needed), "no {needed}: {}", outcome.stderr);
    }
}

/// On a network of its own, where the port is free and neighbours could reach it.
#[test]
fn unless_told_a_gateway_listens_for_this_machine_alone() {
    let lan = Lan::new();
    let (node, other) = (lan.node(), lan.node());
    let (publisher, cid) = Flist::with_image();
    let mut gateway = node.run(|| Gateway::by_default(&publisher));
    assert_eq!(gateway.url(), "http://127.0.0.1:8080");
    assert!(!gateway.warned().contains("whoever reaches"), "{}", gateway.warned());
    node.run(|| assert!(over_http(gateway.url(), &cid).0.starts_with("HTTP/1.1 200")));
    let refused = |from: &Node| from.run(|| TcpStream::connect((node.address(), 8080)).unwrap_err().kind());
    assert_eq!(refused(&node), ErrorKind::ConnectionRefused);
    assert_eq!(refused(&other), ErrorKind::ConnectionRefused);
}
