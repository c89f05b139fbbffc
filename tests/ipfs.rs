//! IPFS nodes as sinks and sources: real ones where there are any, and one that goes wrong as it is told.
//!
//! js-ipfs has the RPC that we publish to, kubo (as a library, without its RPC) is a second opinion on whether what is published
//! can be had and pinned by others, and [`harness::rpc`] answers as kubo's documentation says.

use std::fs;
use std::time::Duration;

use harness::ipfs::Daemon;
use harness::publisher::{self, explains, objects, publish};
use harness::rpc::Trick;
use harness::{Flist, Kubo, Rpc, args, compare, debian, rootfs, skip, store, synthetic, wait};
use rustix::process::{Pid, Signal, kill_process};

/// Scheduling noise allowed after a deadline: debug builds on two shared cores are slow.
const SLACK: Duration = Duration::from_secs(10);

/// Publishes to a `node` that has nothing, and looks at it through the node's own words: one pin, and exactly our blocks below it.
#[track_caller]
fn published(flist: &Flist, cid: &str, node: &Daemon) {
    published_by(&node.spec(), flist, cid, node);
}

/// The same by another way to the node.
#[track_caller]
fn published_by(to: &str, flist: &Flist, cid: &str, node: &Daemon) {
    let report = publish(flist, cid, to, &[]);
    let objects = objects(flist);
    let all = objects.len() as u64;
    assert_eq!((report["objects"].as_u64(), report["sent"].as_u64()), (Some(all), Some(all)), "{report}");
    assert_eq!(report["bytes"].as_u64(), Some(store::size(flist.store())), "{report}");
    assert_eq!(node.pins(), [cid]);
    let mut below = node.refs(cid);
    below.push(cid.to_owned());
    below.sort();
    assert_eq!(below, objects);
}

/// Publishes a tree to `node` and mounts it from there.
fn there_and_back(node: &Daemon) -> String {
    let (flist, cid) = publisher::seven_megabytes();
    published(&flist, &cid, node);
    let all = objects(&flist).len() as u64;

    // Again: nothing is sent.
    let report = publish(&flist, &cid, &node.spec(), &[]);
    assert_eq!((report["sent"].as_u64(), report["skipped"].as_u64()), (Some(0), Some(all)), "{report}");

    // From another machine, so to say: nothing of it is here.
    let spec = node.spec();
    for mode in ["auto", "fuse"] {
        let reader = Flist::new();
        let mounted = reader.mount_with(&cid, &["--from", &spec, "--mode", mode]);
        compare::assert_same(&flist.home().join("source"), mounted.path());
        assert!(mounted.status().bytes_fetched * 2 > store::size(flist.store()));
    }
    Flist::new().ok(args!["check", cid, "--from", spec]);
    cid
}

#[test]
#[ignore = "needs a kubo daemon, which no registry has: KUBO_BINARY"]
fn a_kubo_daemon_takes_and_gives_an_flist_too() {
    let node = Daemon::kubo().unwrap_or_else(|why| panic!("{why}"));
    let cid = there_and_back(&node);
    let listed = node.call(&format!("pin/ls?arg={cid}&type=recursive&names=true")).ok().json();
    assert!(listed.to_string().contains(&format!("flist:{cid}")), "{listed}");
    let flist = Flist::new();
    let name = flist.ok(args!["name", "publish", "images", cid, "--to", node.spec()]).text();
    let name = name.strip_prefix("ipns://").unwrap_or_else(|| panic!("{name}"));
    let resolved = node.call(&format!("name/resolve?arg=/ipns/{name}&timeout=20s")).ok().json();
    assert_eq!(resolved["Path"].as_str(), Some(&*format!("/ipfs/{cid}")));
    // What it does not have it says at once, so that other sources are asked.
    let (other, missing) = Flist::with_image();
    let both = format!("{},{}", node.spec(), other.spec());
    other.run_within(SLACK, args!["info", missing, "--from", both]).ok();
}

#[test]
fn a_published_tree_is_pinned_whole_and_mounts_from_the_node_alone() {
    let node = match Daemon::js_ipfs() {
        Ok(node) => node,
        Err(why) => return skip::skip(&why),
    };
    let cid = there_and_back(&node);

    // A second implementation gets it from the first and is content with it.
    let mut kubo = match Kubo::start() {
        Ok(kubo) => kubo,
        Err(why) => return skip::skip(&why),
    };
    kubo.connect(&node.address());
    assert!(kubo.pin(&cid, Duration::from_secs(60)), "kubo pins the flist: {}", kubo.log());
    assert!(kubo.has_pinned(&cid));
}

#[test]
fn a_profile_is_pinned_beside_its_flist_and_followed_from_the_node() {
    let node = match Daemon::js_ipfs() {
        Ok(node) => node,
        Err(why) => return skip::skip(&why),
    };
    let flist = Flist::new();
    let source = flist.home().join("source");
    rootfs::build(&source, &["/bin/true"]);
    let cid = flist.pack(&source);
    let reference = flist.ok(args!["profile", "record", cid, "--", "/bin/true"]).text();
    let profile = reference.split_once("profile=").unwrap().1;
    publish(&flist, &cid, &node.spec(), &[]);
    let report = publish(&flist, &reference, &node.spec(), &[]);
    assert_eq!((&report["sent"], &report["profile"]), (&1.into(), &profile.into()), "{report}");
    let (mut pins, mut both) = (node.pins(), [cid.as_str(), profile]);
    pins.sort();
    both.sort();
    assert_eq!(pins, both);
    let user = Flist::new();
    let mounted = user.mount_with(&reference, &["--from", &node.spec()]);
    wait::until("the profile is followed to its end", Duration::from_secs(40), || {
        let said = user.ok(args!["mounts", "--json"]).json()[0]["profile"].clone();
        said["is_under_way"] == false && said["fetched"] == said["wanted"]
    });
    compare::assert_same(&source, mounted.path());
}

#[test]
fn a_debian_tree_goes_through_a_real_node_unchanged() {
    let (source, node) = match (debian::tree(), Daemon::js_ipfs()) {
        (Ok(source), Ok(node)) => (source, node),
        (Err(why), _) | (_, Err(why)) => return skip::skip(&why),
    };
    let flist = Flist::new();
    let cid = flist.pack(&source);
    published(&flist, &cid, &node);
    let reader = Flist::new();
    let mounted = reader.mount_with(&cid, &["--from", &node.spec()]);
    compare::assert_same(&source, mounted.path());
    assert!(mounted.status().bytes_fetched * 2 > store::size(flist.store()), "it comes from the node");
}

/// Without an import the same blocks arrive one by one. js-ipfs takes other words for that than kubo.
#[test]
fn a_real_node_takes_an_flist_block_by_block() {
    let node = match Daemon::js_ipfs() {
        Ok(node) => node,
        Err(why) => return skip::skip(&why),
    };
    let (flist, cid) = publisher::seven_megabytes();
    let old = Rpc::before(node.port());
    old.fails("dag/import", Trick::Status(404), usize::MAX);
    published_by(&old.spec(), &flist, &cid, &node);
    assert!(old.count("block/put") >= objects(&flist).len());
    Flist::new().ok(args!["check", cid, "--from", node.spec()]);
}

/// Publishes from a source slow enough to be stopped in the middle, which is when `half` holds, and returns what was said.
fn stopped_midway(flist: &Flist, cid: &str, to: &str, mut half: impl FnMut() -> bool) -> String {
    let origin = harness::Origin::over(flist.store());
    origin.link(harness::origin::Link { bytes_per_second: Some(8 << 20), ..Default::default() });
    let mut command = flist.command(args!["publish", cid, "--from", origin.url(), "--to", to]);
    let log = flist.home().join("log");
    let mut child = command.stderr(fs::File::create(&log).unwrap()).spawn().unwrap();
    wait::until("some blocks have arrived", Duration::from_secs(60), &mut half);
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    wait::for_the_end_of(child.id() as i32, Duration::from_secs(30));
    let said = fs::read_to_string(&log).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1), "{said}");
    said
}

#[test]
fn a_publication_that_was_stopped_goes_on_where_it_was() {
    let node = match Daemon::js_ipfs() {
        Ok(node) => node,
        Err(why) => return skip::skip(&why),
    };
    let (flist, cid) = publisher::packed(synthetic::sixty_megabytes);
    let said = stopped_midway(&flist, &cid, &node.spec(), || {
        let stat = node.call("repo/stat").ok().json();
        let count = stat["NumObjects"].as_str().unwrap_or_else(|| panic!("no count: {stat}"));
        count.parse::<u64>().unwrap() > 30
    });
    assert!(said.contains("stopped: what ipfs:http://127.0.0.1"), "{said}");
    assert!(node.pins().is_empty(), "half an flist is not pinned");

    let report = publish(&flist, &cid, &node.spec(), &[]);
    let (skipped, sent) = (report["skipped"].as_u64().unwrap(), report["sent"].as_u64().unwrap());
    assert!(skipped >= 30 && sent > 0, "{report}");
    assert_eq!(skipped + sent, objects(&flist).len() as u64);
    assert_eq!(node.pins(), [cid.as_str()]);
}

#[test]
fn a_stopped_publication_leaves_a_store_with_what_came_and_an_archive_as_it_was() {
    let (flist, cid) = publisher::packed(synthetic::sixty_megabytes);
    let other = Flist::new();
    let said = stopped_midway(&flist, &cid, &other.spec(), || store::unfinished(other.store()).len() > 20);
    assert!(said.contains("stopped: what dir:"), "{said}");
    let arrived = objects(&other);
    assert!(arrived.len() > 20 && !arrived.contains(&cid), "{} objects", arrived.len());
    store::assert_whole(other.store());
    let report = publish(&flist, &cid, &other.spec(), &[]);
    assert_eq!(report["skipped"].as_u64(), Some(arrived.len() as u64), "{report}");
    assert_eq!(objects(&other), objects(&flist));

    let folder = flist.home().dir("archives");
    let archive = folder.join("image.car");
    fs::write(&archive, "before").unwrap();
    let size = || fs::read_dir(&folder).unwrap().map(|e| e.unwrap().metadata().unwrap().len()).sum::<u64>();
    let said = stopped_midway(&flist, &cid, &format!("car:{}", archive.display()), || size() > 4 << 20);
    assert!(said.contains("is as it was before"), "{said}");
    assert_eq!(fs::read(&archive).unwrap(), b"before");
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
}

#[test]
fn a_node_that_names_pins_names_ours() {
    let (node, (flist, cid)) = (Rpc::start(), publisher::seven_megabytes());
    let report = publish(&flist, &cid, &node.spec(), &["--name", "debian 12"]);
    assert_eq!(report["pin"], "flist:debian 12");
    assert_eq!(node.pins(), [(cid.clone(), "flist:debian 12".to_owned())].into());
    assert_eq!(node.blocks(), objects(&flist));
    let again = flist.ok(args!["publish", cid, "--to", node.spec()]);
    assert!(
        again.text().starts_with(&format!("{cid} is in {}, pinned as flist:{cid}: ", node.spec())),
        "{}",
        again.text()
    );
    assert!(again.text().contains(" 0 of 0 B were sent"), "{}", again.text());
    assert_eq!(node.pins(), [(cid.clone(), format!("flist:{cid}"))].into());
}

/// Names are signed by the node's keys; js-ipfs resolves those that it signed itself.
#[test]
fn a_real_node_signs_names_and_knows_what_they_stand_for() {
    let node = match Daemon::js_ipfs() {
        Ok(node) => node,
        Err(why) => return skip::skip(&why),
    };
    let (flist, cid) = Flist::with_image();
    let warned = flist.ok(args!["name", "publish", "images", cid, "--to", node.spec()]);
    assert!(warned.stderr.contains("has not pinned"), "{}", warned.stderr);
    publish(&flist, &cid, &node.spec(), &[]);
    let named = flist.ok(args!["name", "publish", "images", cid, "--to", node.spec()]);
    assert_eq!(named.stderr, "");
    assert_eq!(named.stdout, warned.stdout, "the second time the key is there");
    let name = named.text();
    let name = name.strip_prefix("ipns://").unwrap_or_else(|| panic!("{name}"));
    let resolved = node.call(&format!("name/resolve?arg=/ipns/{name}&timeout=20s")).ok().json();
    assert_eq!(resolved["Path"].as_str(), Some(&*format!("/ipfs/{cid}")));
    // It refuses to meet itself, and knows who that is.
    let itself = format!("{cid}?peer={}", node.address());
    let asked = args!["info", itself, "--from", node.spec(), "--allow-private-hints"];
    assert_eq!(Flist::new().ok(asked).stderr, "");
}

/// A name is resolved by the nodes among the sources; when they cannot, it leads where it led last, with a warning.
#[test]
fn a_name_leads_where_a_node_says_and_else_where_it_led_last() {
    let (node, (flist, cid)) = (Rpc::start(), Flist::with_image());
    publish(&flist, &cid, &node.spec(), &[]);
    let name = flist.ok(args!["name", "publish", "images", cid, "--to", node.spec()]).text();
    let reader = Flist::new();
    let named = reader.ok(args!["info", name, "--from", node.spec(), "--json"]);
    assert!(named.stderr.contains(&format!("is {cid}")), "where it leads is said: {}", named.stderr);
    let mounted = reader.mount_with(&name, &["--from", &node.spec()]);
    compare::assert_same(&flist.home().join("source"), mounted.path());
    mounted.umount();

    // The node knows no more, or hangs: what it said before counts, and the user is told.
    for (trick, words) in
        [(Trick::Status(500), "something is wrong with this node"), (Trick::Hangs, "no sign of life")]
    {
        node.fails("name/resolve", trick, 1);
        let asked = args!["info", name, "--from", node.spec(), "--deadline", "4"];
        let stale = reader.run_within(Duration::from_secs(4) + SLACK, asked).ok();
        for needed in ["may lead elsewhere by now", words, &cid] {
            assert!(stale.stderr.contains(needed), "{trick:?}: no {needed:?}: {}", stale.stderr);
        }
    }
    // A name that never led anywhere ends in time, and one without a node says what to do.
    node.fails("name/resolve", Trick::Hangs, 1);
    let asked = args!["info", "ipns://k51qzi5uqu5dnever", "--from", node.spec(), "--deadline", "4"];
    let outcome = reader.run_within(Duration::from_secs(4) + SLACK, asked);
    explains(&outcome, &["k51qzi5uqu5dnever cannot be resolved", &node.spec()]);
    let outcome = reader.run_within(SLACK, args!["info", "ipns://example.org"]);
    explains(&outcome, &["takes an IPFS node", "--from ipfs:"]);
    // It leads elsewhere, and that is followed.
    let (other, second) = Flist::with_image();
    fs::write(other.home().join("source/more"), "more").unwrap();
    let third = other.pack(&other.home().join("source"));
    assert_ne!(second, third);
    other.ok(args!["publish", third, "--to", node.spec()]);
    other.ok(args!["name", "publish", "images", third, "--to", node.spec()]);
    let moved = reader.ok(args!["info", name, "--from", node.spec()]);
    assert!(moved.stderr.contains(&format!("is {third}")), "{}", moved.stderr);
}

#[test]
fn a_name_is_signed_by_one_node_and_says_so_otherwise() {
    let (node, (flist, cid)) = (Rpc::start(), Flist::with_image());
    publish(&flist, &cid, &node.spec(), &[]);
    let outcome = flist.ok(args!["name", "publish", "images", cid, "--to", node.spec(), "--json"]).json();
    assert_eq!((&outcome["key"], &outcome["cid"]), (&"images".into(), &cid.as_str().into()), "{outcome}");
    let published: Vec<String> =
        node.log().into_iter().filter(|head| head.contains("name/publish")).collect();
    for part in ["allow-offline=true", "lifetime=48h", "ttl=5m", "key=images"] {
        assert!(published[0].contains(part), "{published:?}");
    }
    node.fails("name/publish", Trick::Status(500), 1);
    let failed = flist.run(args!["name", "publish", "images", cid, "--to", node.spec()]);
    explains(&failed, &["naming it on", "something is wrong with this node", &node.spec()]);
    let failed = flist.run(args!["name", "publish", "images", cid]);
    explains(&failed, &["has no keys", "--to ipfs:URL"]);
    assert_eq!(flist.run(args!["name", "publish", "a/b", cid]).code, 2);
}

/// What is there under the name of an archive is whole or untouched, and the same flist is the same file.
#[test]
fn an_archive_appears_when_it_is_whole() {
    let (flist, cid) = publisher::seven_megabytes();
    let archive = flist.home().join("image.car");
    let spec = format!("car:{}", archive.display());
    let report = publish(&flist, &cid, &spec, &[]);
    assert_eq!(report["sent"].as_u64(), Some(objects(&flist).len() as u64), "{report}");
    let first = fs::read(&archive).unwrap();
    publish(&flist, &cid, &spec, &[]);
    assert!(fs::read(&archive).unwrap() == first, "the same flist is the same file");
    let reader = Flist::new();
    reader.ok(args!["check", cid, "--from", spec]);
    compare::assert_same(&flist.home().join("source"), reader.mount_with(&cid, &["--from", &spec]).path());
    // From an archive onto a node: whatever gives proven blocks is a source.
    let node = Rpc::start();
    publish(&reader, &cid, &node.spec(), &["--from", &spec]);
    assert_eq!(node.blocks(), objects(&flist));

    let hole = store::objects(flist.store()).into_iter().rfind(|(name, _)| name.starts_with("bafk"));
    fs::remove_file(hole.unwrap().1).unwrap();
    let outcome = flist.run(args!["publish", cid, "--to", spec]);
    explains(&outcome, &["cannot be had"]);
    assert!(fs::read(&archive).unwrap() == first, "what was there stays");
    let left = fs::read_dir(flist.home().path()).unwrap().flatten();
    let left: Vec<_> = left.filter(|e| e.file_name().as_encoded_bytes().starts_with(b".writing-")).collect();
    assert!(left.is_empty(), "{left:?}");
    let outcome = flist.run(args!["publish", cid, "--to", "car:/dev/null"]);
    explains(&outcome, &["writing the archive /dev/null", "no file"]);
}

#[test]
fn a_store_is_a_sink_too_and_gets_only_what_it_lacks() {
    let (flist, cid) = publisher::seven_megabytes();
    let other = Flist::new();
    let report = publish(&flist, &cid, &other.spec(), &[]);
    assert_eq!(report["sent"].as_u64(), Some(objects(&flist).len() as u64));
    store::assert_whole(other.store());
    assert_eq!(objects(&other), objects(&flist));
    // One object is damaged and one is gone: both are sent, nothing else.
    let all = store::objects(other.store());
    fs::write(&all[3].1, b"wrong").unwrap();
    fs::remove_file(&all[5].1).unwrap();
    let report = publish(&flist, &cid, &other.spec(), &[]);
    assert_eq!((report["sent"].as_u64(), report["skipped"].as_u64()), (Some(2), Some(all.len() as u64 - 2)));
    other.ok(args!["check", cid]);
    // What is not whole at its source is not published as if it were.
    let hole =
        store::objects(flist.store()).into_iter().find(|(name, _)| *name != cid && name.starts_with("bafk"));
    fs::remove_file(hole.unwrap().1).unwrap();
    let empty = Flist::new();
    let outcome = flist.run(args!["publish", cid, "--to", empty.spec()]);
    explains(&outcome, &["cannot be had", "--from"]);
    assert!(!objects(&empty).contains(&cid), "the root comes last");
}
