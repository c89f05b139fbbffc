//! The RPC of a node, as a source and as a sink: how it is reached, and all that can be wrong with what it says.

use std::fs;
use std::time::Duration;

use harness::publisher::{self, explains, publish};
use harness::rpc::{self, Trick};
use harness::tls::{Authority, Certificate, Front};
use harness::{Flist, Rpc, args, compare, wait};

/// Scheduling noise allowed after a deadline: debug builds on two shared cores are slow.
const SLACK: Duration = Duration::from_secs(10);
/// Somebody whom a node may meet.
const PEER: &str = "/ip4/127.0.0.1/tcp/4001/p2p/12D3KooWDzVGLM8mkHFhkzuwebpDg2YCsgSW3cjdsFm7FJEvGmSe";

#[test]
fn a_node_that_is_not_there_or_no_node_says_so() {
    let (flist, cid) = Flist::with_image();
    let gone = Rpc::start().spec();
    let outcome = flist.run_within(Duration::from_secs(60), args!["publish", cid, "--to", gone]);
    explains(&outcome, &["Connection refused", &gone, "sends only the rest"]);
    let gateway = harness::Gateway::of(&flist);
    let spec = format!("ipfs:{}", gateway.url());
    let outcome = flist.run_within(Duration::from_secs(60), args!["publish", cid, "--to", spec]);
    explains(&outcome, &["not the RPC of an IPFS node", &spec]);
    let outcome = flist.run_within(SLACK * 2, args!["info", cid, "--from", spec]);
    explains(&outcome, &["cannot be used", "not the RPC of an IPFS node", &spec]);
    let outcome = flist.run(args!["publish", cid, "--to", gateway.url()]);
    explains(&outcome, &["can only be read", gateway.url()]);
    let outcome = flist.run(args!["pack", flist.home().join("source"), "--to", "ipfs:"]);
    explains(&outcome, &["flist publish CID --to ipfs:http://127.0.0.1:5001"]);
    let outcome = flist.run(args!["publish", cid, "--to", "ipfs:ftp://host"]);
    assert_eq!(outcome.code, 2, "{}", outcome.stderr);
    assert!(outcome.stderr.contains("write ipfs:http://HOST:PORT"), "{}", outcome.stderr);
}

/// Over TLS a node is what it is without. What is wrong with a certificate does not pass, and nobody is asked over such a connection.
#[test]
fn a_node_behind_tls_is_asked_when_its_certificate_is_good() {
    let (node, (flist, cid)) = (Rpc::start(), Flist::with_image());
    publish(&flist, &cid, &node.spec(), &[]);
    let (authority, reader) = (Authority::default(), Flist::new());
    let trusted = authority.file_in(&flist.home().dir("authority"));
    let run = |arguments| {
        harness::process::run(reader.command(arguments).env("SSL_CERT_FILE", &trusted), SLACK * 3)
    };
    let spec = |front: &Front| format!("ipfs:{}", front.url().replacen("://", "://me:verysecret@", 1));
    let asked = node.log().len();
    for (certificate, words) in
        [(Certificate::Expired, "expired"), (Certificate::ForOther, "not valid for name")]
    {
        let front = authority.front(certificate, node.address());
        for arguments in [
            args!["info", cid, "--from", spec(&front)],
            args!["publish", cid, "--from", flist.spec(), "--to", spec(&front)],
        ] {
            let outcome = run(arguments);
            explains(&outcome, &[words, "no connection that can be trusted", &front.url()]);
            assert!(!outcome.stderr.contains("secret"), "{}", outcome.stderr);
        }
    }
    assert_eq!(node.log().len(), asked);
    let front = authority.front(Certificate::Good, node.address());
    let again = reader.home().join("again");
    run(args!["unpack", cid, again, "--from", spec(&front)]).ok();
    compare::assert_same(&flist.home().join("source"), &again);
    run(args!["name", "publish", "images", cid, "--from", flist.spec(), "--to", spec(&front)]).ok();
    let heads = &node.log()[asked..];
    assert!(heads.iter().all(|head| head.contains("uthorization: Basic ")), "{heads:#?}");
}

#[test]
fn credentials_reach_the_node_and_nobody_else() {
    let (node, (flist, cid)) = (Rpc::start(), Flist::with_image());
    let spec = node.spec_with("me:verysecret");
    let mut command = flist.command(args!["publish", cid, "--to", spec]);
    command.env("G8_LOG", "trace");
    let published = harness::process::run(&mut command, Duration::from_secs(60)).ok();
    for head in node.log() {
        assert!(head.to_lowercase().contains("authorization: basic bwu6dmvyexnly3jlda=="), "{head}");
    }
    node.fails("dag/import", Trick::Status(403), 1);
    let other = Rpc::start();
    other.fails("dag/import", Trick::Status(403), 9);
    let failed = flist.run(args!["publish", cid, "--to", other.spec_with("me:verysecret")]);
    explains(&failed, &["403", &other.spec()]);
    for said in [published.text(), published.stderr, failed.stderr] {
        assert!(!said.contains("verysecret"), "{said}");
    }
}

/// A read from a node that fails ends in time, and one that lies is found out; then the node is asked again.
#[test]
fn a_node_that_goes_wrong_is_an_error_in_time_or_right_bytes() {
    let (flist, cid) = publisher::seven_megabytes();
    std::thread::scope(|scope| {
        // Side by side: most of the time they wait.
        for trick in [
            Trick::Status(500),
            Trick::Status(503),
            Trick::Status(401),
            Trick::Status(404),
            Trick::Busy(60),
            Trick::Hangs,
            Trick::Html,
            Trick::Lies,
            Trick::Cuts(0),
            Trick::Half,
            Trick::Endless("and on"),
        ] {
            let (flist, cid) = (&flist, &cid);
            scope.spawn(move || one_fault(flist, cid, trick));
        }
    });
}

fn one_fault(flist: &Flist, cid: &str, trick: Trick) {
    let (node, reader, source) = (Rpc::start(), Flist::new(), flist.home().join("source"));
    publish(flist, cid, &node.spec(), &[]);
    let options = ["--from", &node.spec(), "--deadline", "4", "--mode", "fuse"];
    let mounted = reader.mount_with(cid, &options);
    let kept = || {
        let stats = reader.ok(args!["cache", "stats", "--json"]).json();
        (stats["memory"]["blocks"].clone(), stats["disk"]["puts"].clone())
    };
    let before = kept();
    assert!(before.1.as_u64().is_some_and(|puts| puts > 0), "the metadata was kept: {before:?}");
    node.fails("block/get", trick, usize::MAX);
    let began = std::time::Instant::now();
    let error = fs::read(mounted.join("big-a")).unwrap_err();
    assert!(matches!(error.raw_os_error(), Some(libc::EIO | libc::ETIMEDOUT)), "{trick:?}: {error}");
    assert!(began.elapsed() < Duration::from_secs(4) + SLACK, "{trick:?}: after {:?}", began.elapsed());
    assert_eq!(kept(), before, "{trick:?}: something was kept that nobody had proven");
    let lied = matches!(trick, Trick::Lies | Trick::Endless(_));
    assert_eq!(mounted.status().wrong > 0, lied, "{trick:?}");
    node.heal();
    // Who lied about a block is asked for another one at once; for the same one in half a minute.
    let (file, limit) = (if lied { "big-b" } else { "big-a" }, Duration::from_secs(45));
    wait::until("the node is asked again", limit, || fs::read(mounted.join(file)).is_ok());
    assert!(fs::read(mounted.join(file)).unwrap() == fs::read(source.join(file)).unwrap(), "{trick:?}");
}

/// Kubo says at once what it does not have; then it may look among its peers for a while.
#[test]
fn a_node_is_asked_for_what_it_has_before_it_looks_elsewhere() {
    let (empty, (flist, cid)) = (Rpc::start(), Flist::with_image());
    let both = format!("{},{}", empty.spec(), flist.spec());
    flist.ok(args!["info", cid, "--from", both]);
    let asked: Vec<String> = empty.log().into_iter().filter(|head| head.contains("block/get")).collect();
    assert!(asked[0].contains("offline=true") && !asked[1].contains("offline=true"), "{asked:#?}");
    assert!(asked.iter().all(|head| head.contains("timeout=")), "{asked:#?}");
}

/// A hint names a peer, and the node is connected to it before it is asked for blocks; one that does not answer costs seconds.
#[test]
fn peers_that_a_reference_hints_at_are_met_by_the_nodes() {
    let (node, (flist, cid)) = (Rpc::start(), Flist::with_image());
    publish(&flist, &cid, &node.spec(), &[]);
    let reference = format!("{cid}?peer={PEER}");
    let reader = Flist::new();
    let outcome = reader.run(args!["info", reference, "--from", node.spec()]);
    explains(&outcome, &["--allow-private-hints"]);
    reader.ok(args!["info", reference, "--from", node.spec(), "--allow-private-hints"]);
    assert_eq!(node.peers(), [PEER]);
    node.fails("swarm/connect", Trick::Hangs, 1);
    let asked = args!["info", reference, "--from", node.spec(), "--allow-private-hints"];
    let late = reader.run_within(SLACK * 2, asked).ok();
    assert!(late.stderr.contains("is not met"), "{}", late.stderr);
    // A node does not meet itself, and nobody wants it to; what else it refuses is told.
    let myself = format!("{cid}?peer=/ip4/127.0.0.1/tcp/4001/p2p/{}", rpc::ID);
    let asked = args!["info", myself, "--from", node.spec(), "--allow-private-hints"];
    assert_eq!(reader.ok(asked.clone()).stderr, "");
    node.fails("id", Trick::Status(500), 1);
    let refused = reader.ok(asked.clone());
    assert!(refused.stderr.contains("dial to self attempted"), "{}", refused.stderr);
    node.fails("swarm/connect", Trick::Status(500), 1);
    let refused = reader.ok(args!["info", reference, "--from", node.spec(), "--allow-private-hints"]);
    assert!(refused.stderr.contains("something is wrong with this node"), "{}", refused.stderr);
}

/// Whatever call a node answers with more than there can be, the rest is not read: it is an error that says so.
#[test]
fn no_answer_of_a_node_is_read_beyond_its_bound() {
    let (flist, cid) = Flist::with_image();
    let calls = ["version", "block/stat", "pin/ls", "key/list", "key/gen", "name/publish", "name/resolve"];
    let itself = format!("/ip4/127.0.0.1/tcp/4001/p2p/{}", rpc::ID);
    for trick in [Trick::Padded(1 << 20), Trick::Endless("{ ")] {
        for call in calls {
            let node = Rpc::start();
            let arguments = match call {
                "version" | "block/stat" => args!["publish", cid, "--to", node.spec()],
                "name/resolve" => args!["info", "ipns://k51qzi5uqu5dname", "--from", node.spec()],
                _ => args!["name", "publish", "images", cid, "--to", node.spec()],
            };
            node.name("k51qzi5uqu5dname", &format!("/ipfs/{cid}"));
            publish(&flist, &cid, &node.spec(), &[]);
            node.fails(call, trick, usize::MAX);
            let outcome = flist.run_within(SLACK * 3, arguments);
            explains(&outcome, &[&format!("{call}: more than 262144 bytes came")]);
        }
        for (call, peer) in [("swarm/connect", PEER), ("id", &itself)] {
            let node = Rpc::start();
            publish(&flist, &cid, &node.spec(), &[]);
            node.fails(call, trick, usize::MAX);
            let reference = format!("{cid}?peer={peer}");
            let asked = args!["info", reference, "--from", node.spec(), "--allow-private-hints"];
            let told = Flist::new().run_within(SLACK * 3, asked).ok();
            assert!(told.stderr.contains("is not met"), "{call}: {}", told.stderr);
        }
        // A block has a bound of its own.
        let node = Rpc::start();
        publish(&flist, &cid, &node.spec(), &[]);
        node.fails("block/get", trick, usize::MAX);
        let outcome = Flist::new().run_within(SLACK * 3, args!["info", cid, "--from", node.spec()]);
        explains(&outcome, &["1032193 bytes offered", &node.spec()]);
    }
}

/// Connections are kept: what a tree takes to be read comes over a few of them.
#[test]
fn a_node_is_asked_over_connections_that_are_kept() {
    let (node, (flist, cid)) = (Rpc::start(), publisher::seven_megabytes());
    publish(&flist, &cid, &node.spec(), &[]);
    let (before, connected) = (node.log().len(), node.connections());
    let reader = Flist::new();
    reader.ok(args!["unpack", cid, flist.home().join("again"), "--from", node.spec()]);
    let (calls, connections) = (node.log().len() - before, node.connections() - connected);
    assert!(calls >= 20 && connections <= calls / 2, "{calls} calls, {connections} connections");
}
