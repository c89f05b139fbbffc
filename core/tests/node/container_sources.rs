//! Where containers have their images from: sources that nobody reaches, that are lost and come back, and others that are named
//! for an image that is mounted already.

use std::net::TcpListener;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::flists::flist_program;
use crate::gateway::Gateway;
use crate::harness::{Node, new_id, runs, said, signal, until, with_own_network};
use crate::place::{Place, data, names};

/// Seconds that a read may take on these nodes.
const DEADLINE: &str = "4";
const SUM: &str = "busybox md5sum /large";

/// A node whose reads fail soon, with an flist that has a large file.
fn place(folder: &TempDir, more: &[(&str, &str)]) -> (Place, String) {
    let environment = [&[("G8_DEADLINE", DEADLINE)], more].concat();
    let place = Place::on(Node::start_with(folder.path(), &environment));
    let cid = place.pack_large_file();
    (place, cid)
}

/// What it is where nobody mounts anything.
fn sum(place: &Place) -> String {
    let output = Command::new("md5sum").arg(place.tree().join("large")).output().unwrap();
    format!("{}  /large\n", String::from_utf8(output.stdout).unwrap().split(' ').next().unwrap())
}

/// The only mount of a node.
fn mount(place: &Place) -> Value {
    let mounts = data(&place.node.call("flist.list", json!({})));
    assert_eq!(mounts.as_array().map(Vec::len), Some(1), "{mounts}");
    mounts[0].clone()
}

/// How many containers are there, or on their way.
fn records(place: &Place) -> usize {
    names(&place.node.dir.join("containers")).len()
}

/// The sources that it asks.
fn sources(place: &Place) -> Vec<String> {
    let mount = mount(place);
    let sources = mount["sources"].as_array().unwrap();
    sources.iter().map(|source| source["spec"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_source_that_nobody_reaches_is_an_error_in_time_that_leaves_nothing() {
    with_own_network(|| {
        let (folder, silent) = (tempfile::tempdir().unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
        let (place, cid) = place(&folder, &[]);
        let hanging = format!("http://{}", silent.local_addr().unwrap());
        // Nobody listens; somebody takes connections and says nothing.
        for source in ["http://127.0.0.1:9", &hanging] {
            let began = Instant::now();
            let (code, said) = place.refused(json!({"root": cid, "storage": source, "nics": []}));
            assert!(began.elapsed() < Duration::from_secs(45), "{source}: after {:?}", began.elapsed());
            assert!(code == 412 && said.contains(&cid) && said.contains(source), "{code} {said}");
            assert_eq!(place.list(), json!({}));
            place.until_nothing_is_left();
        }
    });
}

#[test]
fn a_source_that_is_lost_over_http_is_an_error_inside_until_it_is_back() {
    with_own_network(|| {
        let folder = tempfile::tempdir().unwrap();
        let (place, cid) = place(&folder, &[]);
        let mut gateway = Gateway::of(&place);
        let id = place.created(json!({"root": cid, "storage": gateway.url(), "nics": []}));
        assert_eq!(place.sh(id, "echo ready"), "ready\n");
        gateway.end();
        let said = place.sh(id, "cat /large 2>&1 > /dev/null");
        assert!(said.contains("Input/output error") || said.contains("timed out"), "{said}");
        assert_eq!(place.sh(id, "echo still here"), "still here\n");
        let _back = gateway.again(&place);
        let whole = sum(&place);
        until("it can be read again, and is right", || place.sh(id, SUM) == whole);
        place.terminate(id);
        place.until_nothing_is_left();
    });
}

#[test]
fn an_image_in_use_is_asked_of_the_sources_that_are_named_for_it_since() {
    with_own_network(|| {
        let folder = tempfile::tempdir().unwrap();
        let (place, cid) = place(&folder, &[("G8_ALLOW_PRIVATE_HINTS", "1")]);
        let [mut first, second] = [(); 2].map(|()| Gateway::of(&place));
        let old = place.created(json!({"root": cid, "storage": first.url(), "nics": []}));
        assert_eq!(place.sh(old, "echo ready"), "ready\n");
        first.end();
        let asked = [first.url(), second.url()];
        let whole = sum(&place);
        let new = place.created(json!({"root": cid, "storage": second.url(), "nics": []}));
        assert_eq!(sources(&place), asked);
        assert_eq!([place.sh(new, SUM), place.sh(old, SUM)], [whole.clone(), whole.clone()]);
        // Once more, and as a hint: it is asked already.
        let hint = second.url().replace(':', "%3A").replace('/', "%2F");
        let again = [
            json!({"root": cid, "storage": second.url(), "nics": []}),
            json!({"root": format!("{cid}?gw={hint}"), "storage": first.url(), "nics": []}),
        ]
        .map(|wanted| place.created(wanted));
        assert_eq!(sources(&place), asked);
        // What cannot be asked is an error, as when it is mounted, and changes nothing.
        let (code, said) = place.refused(json!({"root": cid, "storage": "car:/no/such.car", "nics": []}));
        assert!(code == 412 && said.contains("/no/such.car"), "{code} {said}");
        assert_eq!(place.list().as_object().unwrap().len(), 4);
        assert_eq!(sources(&place), asked);
        // The next daemon has them, too.
        let daemon = mount(&place)["pid"].as_i64().unwrap() as i32;
        signal(daemon, libc::SIGKILL);
        until("the daemon is gone", || !runs(daemon));
        until("another one serves it", || {
            data(&place.node.call("flist.list", json!({}))).as_array().is_some_and(|all| all.len() == 1)
        });
        assert_eq!(sources(&place), asked);
        for id in [old, new].into_iter().chain(again) {
            place.terminate(id);
        }
        place.until_nothing_is_left();
    });
}

/// A daemon that hangs, or one source that takes long, holds up who named it, and nobody else who has the image.
#[test]
fn an_image_whose_daemon_hangs_is_left_at_once_and_taken_when_the_next_daemon_is_there() {
    with_own_network(|| {
        let folder = tempfile::tempdir().unwrap();
        let (place, cid) = place(&folder, &[("G8_DEADLINE", "60")]);
        let [first, second] = [(); 2].map(|()| Gateway::of(&place));
        let create = |source: &str| place.created(json!({"root": cid, "storage": source, "nics": []}));
        let [ending, staying] = [(); 2].map(|()| create(first.url()));
        let daemon = mount(&place)["pid"].as_i64().unwrap() as i32;
        signal(daemon, libc::SIGSTOP);
        let id = new_id();
        let arguments = json!({"root": cid, "storage": second.url(), "nics": []});
        place.node.push(json!({"id": id, "command": "corex.create", "arguments": arguments}));
        until("the third is being made", || records(&place) == 3);
        place.terminate(ending);
        until("the first has ended", || {
            place.list().get(ending.to_string()).is_none() && records(&place) == 2
        });
        assert!(place.node.result_within(&id, Duration::from_millis(10)).is_none(), "nobody can be asked");
        // The daemon dies while it is told of the source: the next one is.
        signal(daemon, libc::SIGKILL);
        let new = data(&place.node.result(&id)).as_u64().unwrap();
        assert_eq!(sources(&place), [first.url(), second.url()]);
        drop(first);
        let whole = sum(&place);
        assert_eq!([place.sh(new, SUM), place.sh(staying, SUM)], [whole.clone(), whole]);
        for id in [new, staying] {
            place.terminate(id);
        }
        place.until_nothing_is_left();
    });
}

#[test]
fn a_mount_that_asks_as_many_sources_as_it_can_takes_more_containers() {
    with_own_network(|| {
        let folder = tempfile::tempdir().unwrap();
        let (place, cid) = place(&folder, &[]);
        let old = place.created(json!({"root": cid, "nics": []}));
        let at = mount(&place)["mountpoint"].as_str().unwrap().to_owned();
        for port in 1..16 {
            let add = ["source", "add", &at, &format!("http://127.0.0.1:{port}")];
            let added = Command::new(flist_program())
                .args(add)
                .env("G8_CACHE", mount(&place)["cache"].as_str().unwrap())
                .output()
                .unwrap();
            assert!(added.status.success(), "{added:?}");
        }
        let asked = sources(&place);
        assert_eq!(asked.len(), 16);
        let new = place.created(json!({"root": cid, "storage": "http://127.0.0.1:99", "nics": []}));
        assert_eq!(sources(&place), asked);
        assert!(said(&place.node.dir).contains("asks 16 sources, and no more"));
        let whole = sum(&place);
        assert_eq!([place.sh(new, SUM), place.sh(old, SUM)], [whole.clone(), whole]);
        for id in [new, old] {
            place.terminate(id);
        }
        place.until_nothing_is_left();
    });
}

#[test]
fn a_source_that_is_gone_is_missed_by_nobody_who_named_another() {
    with_own_network(|| {
        let folder = tempfile::tempdir().unwrap();
        let (place, cid) = place(&folder, &[("G8_DEADLINE", "60")]);
        let archive = place.node.dir.join("b.car");
        let published = Command::new(flist_program())
            .args(["publish", &cid, "--to"])
            .arg(format!("car:{}", archive.display()))
            .env("G8_FROM", &place.storage)
            .env("G8_CACHE", place.node.dir.join("cache of who publishes"))
            .output()
            .unwrap();
        assert!(published.status.success(), "{published:?}");
        let gateway = Gateway::of(&place);
        let old = place.created(json!({"root": cid, "storage": gateway.url(), "nics": []}));
        let archived = format!("car:{}", archive.display());
        let new = place.created(json!({"root": cid, "storage": archived, "nics": []}));
        assert_eq!(sources(&place), [gateway.url(), &archived]);
        place.terminate(new);
        std::fs::remove_file(&archive).unwrap();
        let daemon = mount(&place)["pid"].as_i64().unwrap() as i32;
        signal(daemon, libc::SIGKILL);
        until("the daemon is gone", || !runs(daemon));
        until("another one serves it", || {
            data(&place.node.call("flist.list", json!({}))).as_array().is_some_and(|all| all.len() == 1)
        });
        assert_eq!(sources(&place), [gateway.url()]);
        assert_eq!(place.sh(old, SUM), sum(&place));
        place.terminate(old);
        place.until_nothing_is_left();
    });
}

#[test]
fn who_named_a_wrong_source_names_the_right_one_at_once() {
    with_own_network(|| {
        let folder = tempfile::tempdir().unwrap();
        let (place, cid) = place(&folder, &[]);
        let gateway = Gateway::of(&place);
        // So that the cache has the tree and nothing else, and a mount can be made without anybody who has the rest.
        let target = place.node.dir.join("target");
        std::fs::create_dir(&target).unwrap();
        let primed = json!({"ref": cid, "mountpoint": target, "from": [gateway.url()]});
        data(&place.node.call("flist.mount", primed));
        data(&place.node.call("flist.umount", json!({"mountpoint": target})));
        let wrong = place.created(json!({"root": cid, "storage": "http://127.0.0.1:9", "nics": []}));
        let result = place.run(wrong, "core.system", json!({"name": "cat", "args": ["/large"]}));
        assert_eq!(result["state"], "ERROR", "nobody has a block of it: {result}");
        place.terminate(wrong);
        // The mount is still there, or being made anew.
        let right = place.created(json!({"root": cid, "storage": gateway.url(), "nics": []}));
        assert_eq!(place.sh(right, SUM), sum(&place));
        place.terminate(right);
        place.until_nothing_is_left();
    });
}

#[test]
fn what_a_profile_names_is_fetched_before_anybody_reads_it() {
    with_own_network(|| {
        let folder = tempfile::tempdir().unwrap();
        let (place, cid) = place(&folder, &[]);
        let recorded = Command::new(flist_program())
            .args(["profile", "record", &cid, "--", "cat", "/large"])
            .env("G8_FROM", &place.storage)
            .env("G8_TO", &place.storage)
            .env("G8_CACHE", place.node.dir.join("cache of who records"))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&recorded.stdout);
        let reference = said.lines().last().unwrap_or_default().to_owned();
        assert!(reference.starts_with(&format!("{cid}?profile=")), "{reference} {recorded:?}");
        let gateway = Gateway::of(&place);
        let fetched = || mount(&place)["bytes_fetched"].as_u64().unwrap();
        let id = place.created(json!({"root": reference, "storage": gateway.url(), "nics": []}));
        until("all of the file is there", || fetched() >= 6 << 20);
        place.terminate(id);
        place.until_nothing_is_left();
        // The same for a mount of somebody's own, on a node that has nothing of it yet.
        let folder = tempfile::tempdir().unwrap();
        let other = Place::on(Node::start_with(folder.path(), &[]));
        let target = other.node.dir.join("target");
        std::fs::create_dir(&target).unwrap();
        let wanted = json!({"ref": reference, "mountpoint": target, "from": [gateway.url()]});
        data(&other.node.call("flist.mount", wanted));
        until("all of the file is there", || mount(&other)["bytes_fetched"].as_u64().unwrap() >= 6 << 20);
        data(&other.node.call("flist.umount", json!({"mountpoint": target})));
    });
}
